"""Tools with which an assistant runs and reads the jobs of the home (Model Context Protocol)."""
