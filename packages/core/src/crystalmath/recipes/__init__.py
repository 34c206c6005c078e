"""Recipes and their data: names, sources, arguments, structures, encoding, summaries."""
