"""Fixtures of the command line, for all files that test it."""

from __future__ import annotations

from support.command import as_search, fake, walras

__all__ = ("as_search", "fake", "walras")
