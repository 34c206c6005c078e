"""The one place that joins store, run directories, engines and preflight."""

from crystalmath.service.job_service import JobService, default_service

__all__ = ["JobService", "default_service"]
