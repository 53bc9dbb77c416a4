"""Functions: Knative's Service, from its revisions to the answers of their instances."""
