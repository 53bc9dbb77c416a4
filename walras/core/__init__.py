"""Money, quantities, the seam for time and ids, errors. Pure."""
