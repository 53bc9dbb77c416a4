"""Who spent what on which device: allocation of ledger entries."""
