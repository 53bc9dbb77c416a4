"""Callers in pods: they ask by the names that functions have in their own cluster, and are of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.functions.activator import WITHIN
from walras.kube.serve.relay import Relayed


class InsideFunctions(Relayed[str]):
    """The activator as pods see it."""

    def told(self, scope: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
        return {**scope, WITHIN: whose}
