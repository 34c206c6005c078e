"""Stand-ins for optional libraries that Parsl would import in each of its own processes.

This folder is on the path of Parsl's processes (:mod:`~crystalmath_engine_parsl.tether`), but not
of jobs.
"""
