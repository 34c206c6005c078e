"""What Parsl would import in each of its own processes, and does without where it is not installed.

They have this folder on their path (:mod:`~crystalmath_engine_parsl.tether`). Jobs have not.
"""
