"""Who may do what in a cluster: RBAC, service account tokens, impersonation."""
