"""What runs inside a guest: its first process, and what that is made of. Nothing beyond Python's own C."""
