"""How far a running calculation has come, read from what its program writes."""
