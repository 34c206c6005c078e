"""Engines behind the boundary: the registry, the driver that follows their jobs, and `local`."""
