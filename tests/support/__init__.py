"""Worlds to test in."""
