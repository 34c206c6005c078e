"""The one place that joins store, run directories, engines and preflight."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath.service.job_service import JobService, default_service

__all__ = ["JobService", "default_service"]


def __getattr__(name: str) -> Any:
    # Reading jobs needs neither engines nor preflight.
    if name in __all__:
        from crystalmath.service import job_service

        return getattr(job_service, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
