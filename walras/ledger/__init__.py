"""Double-entry accounts, two-phase transfers, budgets with income. Pure."""
