"""For Parsl's provider of Amazon's machines, which its own processes do not ask."""

raise ImportError("Parsl's own processes need no boto3")
