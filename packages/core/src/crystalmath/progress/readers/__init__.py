"""The readers that come with core."""
