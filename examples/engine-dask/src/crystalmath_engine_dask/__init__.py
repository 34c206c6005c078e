"""Run CrystalMath jobs on Dask."""
