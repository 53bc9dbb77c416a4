"""One process: certificates, clock, store, API server, controllers, exchange, runtime."""
