"""Bidding strategies behind the sealed proxy: what work is worth, and when, turned into a price. Pure."""
