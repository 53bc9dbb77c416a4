"""A Kubernetes API server for many logical clusters."""
