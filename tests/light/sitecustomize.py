"""Run by every Python that finds it on its path: as if quacc were not installed."""

import sys

sys.modules["quacc"] = None
