"""A job and its life: the files of its run directory, and what they mean."""
