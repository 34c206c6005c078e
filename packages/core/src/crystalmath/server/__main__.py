"""A server in the background: ``python -P -m crystalmath.server``."""

from __future__ import annotations

import os
import sys

#: Python's own allocator keeps a MiB for as long as one object in it lives: after a burst of large
#: messages that is 100 to 150 MB for ever. The C library's gives them back.
_ALLOCATOR = "PYTHONMALLOC", "malloc"


def main() -> int:
    """Serve the home of the environment; what is wrong goes to standard error."""
    name, wanted = _ALLOCATOR
    if name not in os.environ:  # it is chosen as the interpreter starts
        command = [sys.executable, "-P", "-m", "crystalmath.server"]
        os.execve(command[0], command, {**os.environ, name: wanted})  # noqa: S606 - ourselves
    if os.environ[name] == wanted:
        del os.environ[name]  # it is none of the jobs' business
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
        # The folder that it was started in may be removed, or be on a disk that is to be ejected.
        os.chdir(place.directory)
        serve(place, source)
    except (CrystalMathError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        code = 1
    force_exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
