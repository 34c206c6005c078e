"""A stand-in for the library of Parsl's provider for Amazon, which its processes do not use."""

raise ImportError("Parsl's own processes need no boto3")
