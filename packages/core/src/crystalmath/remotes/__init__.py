"""Homes on other machines, and the way to them: SSH, and `crystalmath serve --stdio` there."""
