"""What runs behind a node, and how its share is enforced."""
