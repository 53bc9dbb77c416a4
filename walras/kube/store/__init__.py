"""The durable store behind every cluster: a port, and SQLite behind it."""
