"""GPU models, fractions and placement. Pure."""
