"""For Parsl's monitoring, which is not used: a third of what importing Parsl takes."""

raise ImportError("Parsl's own processes need no SQLAlchemy")
