"""Readers of published traces: what ran where, in the words of each trace."""
