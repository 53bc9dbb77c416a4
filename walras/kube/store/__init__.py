"""The store port and its SQLite implementation."""
