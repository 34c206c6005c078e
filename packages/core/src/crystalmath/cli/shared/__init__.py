"""What several commands share: options, output, structures, filters."""
