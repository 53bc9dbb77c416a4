"""What a write has to pass before it is stored: defaults, limits, policies, webhooks."""
