"""A stand-in for the library of Parsl's monitoring, a third of the time of importing Parsl."""

raise ImportError("Parsl's own processes need no SQLAlchemy")
