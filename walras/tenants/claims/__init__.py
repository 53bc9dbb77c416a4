"""Dynamic resource allocation (resource.k8s.io/v1): what claims ask for, and which devices they get."""
