"""Modules that several commands share: options, output, structures, filters."""
