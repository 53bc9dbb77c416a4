"""A discrete-event simulation of the market: agents, leases, money and faults in virtual time."""
