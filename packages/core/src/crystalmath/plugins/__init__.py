"""The bases of plugins for programs: what is checked before a job, and how its progress is read."""
