"""A library that an engine needs."""
