"""A job that no home admits."""

from quacc import job


@job
def stranger(number):
    return number
