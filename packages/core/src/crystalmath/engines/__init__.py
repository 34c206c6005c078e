"""Engines behind the boundary: who is installed, what follows their jobs, and the built-in one."""
