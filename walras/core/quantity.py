"""Kubernetes quantities (apimachinery `resource.Quantity`) and durations as integers."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

from walras.core.errors import Invalid

_SUFFIX: Final = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40),
    "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DECIMAL: Final = ("E", "P", "T", "G", "M", "k", "", "m", "u", "n")
_BINARY: Final = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki", "")
_CAP: Final = Fraction(2**63 - 1)  # Kubernetes caps amounts silently
LENGTH_MAX: Final = 64
# Go's, which counts nanoseconds in 64 bits: 292 years.
DURATION_MS_MAX: Final = (2**63 - 1) // 10**6


def _parse(text: str | int | float) -> Fraction:
    return _read(str(text))


# The same few quantities come with every pod, and fractions are slow.
@lru_cache(maxsize=4096)
def _read(text: str) -> Fraction:
    match = _QUANTITY.fullmatch(text) if len(text) <= LENGTH_MAX else None
    if match is None:
        raise Invalid(
            f'"{text[:LENGTH_MAX]}" is not a quantity; it must match '
            r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
        )
    number, exponent, suffix = match.groups()
    scale = Fraction(10) ** int(exponent[1:]) if exponent else _SUFFIX[suffix or ""]
    return Fraction(number) * scale


def exact(text: str) -> Fraction:
    """The amount without any rounding. Raises Invalid."""
    return _read(text)


def parse_quantity(text: str | int | float) -> int:
    """Whole units, rounded up as Kubernetes' `Value()` does ("100m" is 1, "1Ki" 1024). Raises Invalid."""
    value = _parse(text)
    return -((-value.numerator) // value.denominator)


def parse_milli(text: str | int | float) -> int:
    """Thousandths, rounded up as `MilliValue()` does ("100m" is 100, "2" 2000). Raises Invalid."""
    return _milli(str(text))


@lru_cache(maxsize=4096)
def _milli(text: str) -> int:
    value = _read(text) * 1000
    return -((-value.numerator) // value.denominator)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The quantity in canonical form: no fraction, the largest suffix that is exact, in the family of
    suffixes that it was written in ("1000m" is "1", "0.5" is "500m", "1024Mi" is "1Gi"). Raises Invalid.
    """
    return written_like(_parse(text), text)


def written_like(value: Fraction, text: str) -> str:
    """An amount in canonical form, in the family of suffixes of another quantity. Raises Invalid."""
    _read(text)
    value = max(-_CAP, min(value, _CAP))
    written = _QUANTITY.fullmatch(text)
    assert written is not None
    _, exponent, suffix = written.groups()
    if value == 0:
        return "0"
    if (suffix or "").endswith("i") and abs(value) >= 1024 and value.denominator == 1:
        return _scaled(value, _BINARY)
    # Beyond nano, Kubernetes rounds away from zero.
    nano = value * 10**9
    if nano.denominator != 1:
        value = Fraction(-(-abs(nano.numerator) // nano.denominator), 10**9) * (1 if value > 0 else -1)
    if exponent:
        power = max(e for e in range(-9, 19, 3) if (value / Fraction(10) ** e).denominator == 1)
        return f"{value / Fraction(10) ** power}" + (f"e{power}" if power else "")
    return _scaled(value, _DECIMAL)


def _scaled(value: Fraction, suffixes: tuple[str, ...]) -> str:
    """`value` with the first of `suffixes`, largest first, that divides it."""
    suffix = next(s for s in suffixes if (value / _SUFFIX[s]).denominator == 1)
    return f"{value / _SUFFIX[suffix]}{suffix}"


def parse_mib(text: str | int | float) -> int:
    """Mebibytes, rounded up ("10Gi" is 10240). Raises Invalid."""
    return -(-parse_quantity(text) // 2**20)


def format_mib(mib: int) -> str:
    """A quantity for mebibytes: "10Gi" where it is whole, else "512Mi"."""
    return f"{mib // 1024}Gi" if mib and mib % 1024 == 0 else f"{mib}Mi"


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a Go-like duration such as "90s", "1h30m" or "250ms". Raises Invalid."""
    parts = _DURATION.findall(text) if len(text) <= LENGTH_MAX else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Invalid(f'"{text[:LENGTH_MAX]}" is not a duration; write one such as "90s", "10m" or "1h30m"')
    ms = int(sum(Fraction(number) * _UNIT_MS[unit] for number, unit in parts))
    if ms > DURATION_MS_MAX:
        raise Invalid(f'"{text}" is too long; the longest duration is {format_duration(DURATION_MS_MAX)}')
    return ms


def format_duration(ms: int) -> str:
    """The largest units that say it exactly: "10m", "1h30m", "250ms"."""
    if ms == 0:
        return "0s"
    text = ""
    for unit in ("d", "h", "m", "s", "ms"):
        number, ms = divmod(ms, _UNIT_MS[unit])
        text += f"{number}{unit}" if number else ""
    return text
