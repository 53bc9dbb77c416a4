"""Training jobs on a GPU cluster in rounds, as Gavel and Shockwave simulate them: their policies, and a market."""
