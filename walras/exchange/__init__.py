"""The live auctioneer: demand, ticks, leases, nodes, meters, settlement."""
