"""What a recipe gets in place of the results of calculations that nobody has made.

Each knows what is known beforehand; with `stop` it says of all else that it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ase import Atoms

#: Remembers why a recipe cannot go on, and gives what is to be raised.
Stop: TypeAlias = Callable[[str], BaseException]


class Unseen(dict[str, Any]):
    """The results of a calculation that nobody has made."""

    #: Magnetic moments on the atoms, in µB, where some are supposed.
    moments: Any = None

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._end = stop

    def _stop(self, *_: object, **__: object) -> Any:
        raise self._end("the results of a calculation are needed")

    __getitem__ = __contains__ = __iter__ = __len__ = _stop
    items = keys = values = copy = pop = clear = update = _stop

    def get(self, key: str, default: object = None) -> Any:
        """Return what is known, or the default of what chooses nothing."""
        # quacc and pymatgen hand these on to the next calculation of the same atoms, if they are
        # there; they choose no file.
        if key == "magmoms" and self.moments is not None:
            return self.moments
        return default if key in {"magmoms", "charges"} else self[key]

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: object) -> Unseen:
        return self


class Outcome:
    """An optimizer, a dynamics or a vibration analysis that was not run."""

    def __init__(self, atoms: Atoms, stop: Stop) -> None:
        self.atoms = atoms
        self._end = stop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._end(f"the {name!r} of a calculation is needed")


class Summary(dict[str, Any]):
    """The summary of a calculation that nobody has made: some of it is known beforehand."""

    def __init__(self, known: Mapping[str, Any], stop: Stop) -> None:
        super().__init__(known)
        self._end = stop

    def __missing__(self, key: str) -> Any:
        raise self._end(f"the {key!r} of a result is needed")

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or self.__missing__(str(key))

    def get(self, key: str, default: object = None) -> Any:  # noqa: ARG002 - dict's signature
        """Return what is known; a default would be taken for a result."""
        return self[key]
