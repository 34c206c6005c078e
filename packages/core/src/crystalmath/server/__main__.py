"""A server in the background: ``python -P -m crystalmath.server``."""

from __future__ import annotations

import os
import sys

#: The C library's allocator returns memory after a burst of large messages. Python's own keeps each
#: MiB in which one object lives: 100 to 150 MB for ever.
_ALLOCATOR = "PYTHONMALLOC", "malloc"


def main() -> int:
    """Serve the home of the environment; write errors to standard error."""
    name, wanted = _ALLOCATOR
    if name not in os.environ:  # the interpreter chooses its allocator when it starts
        command = [sys.executable, "-P", "-m", "crystalmath.server"]
        os.execve(command[0], command, {**os.environ, name: wanted})  # noqa: S606 - this program again
    if os.environ[name] == wanted:
        del os.environ[name]  # jobs must not inherit it
    return _serve()


def _serve() -> int:
    from crystalmath.config import Source
    from crystalmath.errors import CrystalMathError
    from crystalmath.server.daemon import force_exit, serve
    from crystalmath.server.endpoint import Place

    code = 0
    try:
        source = Source()
        place = Place.of(source.last.home)
        place.make()
        # The folder in which it was started may be removed, or its disk ejected.
        os.chdir(place.directory)
        serve(place, source)
    except (CrystalMathError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        code = 1
    force_exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
