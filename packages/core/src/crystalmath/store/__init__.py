"""The records of jobs, behind :mod:`crystalmath.quacc.store`."""
