"""A network for each agent: addresses for its pods, Services, names; no way to another's or to the host."""
