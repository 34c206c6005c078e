"""Jobs as files for other homes and people: archives, and a script of one job."""
