"""One pool for inference and training, and what money buys in it: real arrivals under every policy."""
