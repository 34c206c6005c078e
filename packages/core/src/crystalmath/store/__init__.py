"""What is on record of jobs, behind :mod:`crystalmath.quacc.store`."""
