"""What a CEL rule may cost: cel-cpp would take all the time and memory that a rule asks for."""

from __future__ import annotations

from typing import Any

import pytest

from walras.kube import cel

PORTS = [{"name": f"n{number}", "port": number} for number in range(90)]
DOUBLING = "['aaaa']" + ".map(a, a+a+a+a+a+a+a+a+a+a)" * 9 + ".size() > 0"


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("self.all(x, self.exists_one(y, x.name == y.name))", PORTS, True),
        ("self.all(x, x.matches('^[a-z]+$'))", ["abcdef"] * 3000, True),
        ("self.map(x, x.name).join(',').startsWith('n0,n1')", PORTS, True),
        ("'at most ' + string(self.max) + ', not ' + self.text", {"max": 3, "text": "4"}, "at most 3, not 4"),
        ("size(self.a) + size(self.a) < 10 && self.list.all(x, x + 1 > 0)", {"a": "x", "list": [1]}, True),
    ],
)  # fmt: skip
def test_what_rules_are_written_for_fits_the_budget(rule: str, value: Any, expected: Any) -> None:
    assert cel.evaluate(rule, value) == expected


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (DOUBLING, None),
        ("self.text.replace('', self.text).replace('', self.text)", {"text": "a" * 3000}),
        ("self.list.all(x, self.text.matches('(a+)+b'))", {"list": list(range(9000)), "text": "a" * 100_000}),
        ("self.map(x, self.map(y, self[0]).join(',')).join(',').size() > 0", ["a" * 1000] * 90),
        # Whitespace and comments stand wherever a rule likes.
        (
            "self.list. // a comment\n all (x, self.map == self.map)",
            {"list": list(range(9000)), "map": {str(number): [{"a": 1}] for number in range(2000)}},
        ),
    ],
)
def test_a_rule_that_could_take_all_there_is_is_not_begun(rule: str, value: Any) -> None:
    with pytest.raises(cel.RuleError, match="may cost more than the budget"):
        cel.evaluate(rule, value)
