"""Quantities and durations read as Kubernetes reads them."""

from __future__ import annotations

import pytest

from walras.core import quantity
from walras.core.errors import Invalid


@pytest.mark.parametrize(
    ("text", "milli", "units"),
    [("1", 1000, 1), ("100m", 100, 1), ("1.5", 1500, 2), ("1Ki", 1_024_000, 1024), ("1e3", 1_000_000, 1000)],
)
def test_quantities(text: str, milli: int, units: int) -> None:
    assert quantity.parse_milli(text) == milli
    assert quantity.parse_quantity(text) == units


@pytest.mark.parametrize("text", ["", "abc", "1 Gi", "1ki", "--1", "1e9999", "9" * 65])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        quantity.parse_quantity(text)


def test_memory_is_in_mebibytes() -> None:
    assert quantity.parse_mib("10Gi") == 10240
    assert quantity.format_mib(10240) == "10Gi"
    assert quantity.format_mib(512) == "512Mi"


def test_durations() -> None:
    assert quantity.parse_duration_ms("1h30m") == 5_400_000
    assert quantity.parse_duration_ms("250ms") == 250
    assert quantity.format_duration(5_400_000) == "1h30m"
    assert quantity.parse_duration_ms("2562047h") <= quantity.DURATION_MS_MAX
    with pytest.raises(Invalid, match="the longest duration is 106751d"):
        quantity.parse_duration_ms("2562048h")
    for text in ("", "10", "m", "1h 30m", "-1s"):
        with pytest.raises(Invalid):
            quantity.parse_duration_ms(text)
