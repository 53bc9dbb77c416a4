"""Bids, winner determination, prices and explanations. Pure: a snapshot in, an outcome out."""
