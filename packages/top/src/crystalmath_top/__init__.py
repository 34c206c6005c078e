"""A screen in the terminal that follows the jobs of the home: ``crystalmath top``."""
