"""Benchmarks: each prints one JSON line and measures a peer or the limit in the same run."""
