"""Submit atomistic calculations to any workflow engine, and know what became of them."""

__version__ = "0.1.0.dev0"
