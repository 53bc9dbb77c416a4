"""One pool of GPUs that are unlike: jobs of Microsoft's Philly on V100, P100 and K80, under every policy."""
