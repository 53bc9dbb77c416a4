"""Accounts, two-phase transfers, budgets with income. Pure."""
