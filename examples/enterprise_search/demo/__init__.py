"""Enterprise search beside training, under a market and under two queues: `scripts/demo`."""
