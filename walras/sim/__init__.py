"""The same market and ledger in virtual time, on traces: what a policy would do, against those people use."""
