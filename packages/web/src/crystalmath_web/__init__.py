"""A page in the browser for the jobs of a home: ``crystalmath ui``."""
