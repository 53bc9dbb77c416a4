"""An agent's control plane: its cluster, controllers and scheduler."""
