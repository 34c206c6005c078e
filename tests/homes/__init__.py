"""Homes that releases have written, and the script that makes one."""
