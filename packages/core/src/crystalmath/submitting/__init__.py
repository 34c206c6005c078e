"""A submission until it is on record: what it asks for, what it refers to, and all its checks."""
