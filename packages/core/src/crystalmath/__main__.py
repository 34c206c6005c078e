"""Run the command line as ``python -m crystalmath``."""

from crystalmath.cli import main

if __name__ == "__main__":
    main()
