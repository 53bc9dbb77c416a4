"""Conversion webhooks: somebody outside says what a custom resource is in another version."""
