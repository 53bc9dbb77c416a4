"""The vm runtime: every pod in a virtual machine of its own, with a kernel that nobody else shares."""
