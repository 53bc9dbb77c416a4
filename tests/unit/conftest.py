"""Fixtures of the command line and of the application, for all files that test them."""

from __future__ import annotations

from support.application import store
from support.command import as_search, fake, walras

__all__ = ("as_search", "fake", "store", "walras")
