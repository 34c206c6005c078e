"""A server in the background: ``python -P -m crystalmath.server``."""

from __future__ import annotations

import os
import sys

from crystalmath.config import Source
from crystalmath.errors import CrystalMathError
from crystalmath.server.daemon import force_exit, serve
from crystalmath.server.endpoint import Place


def main() -> int:
    """Serve the home of the environment; what is wrong goes to standard error."""
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
