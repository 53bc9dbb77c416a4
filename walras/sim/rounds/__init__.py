"""Training jobs on GPUs in rounds, as Gavel and Shockwave simulate them: their policies, and a market."""
