"""CEL as Kubernetes has it: the language, its types, its costs. Expected is what cel-spec and cel-go say."""

from __future__ import annotations

import time
from typing import Any

import pytest

from walras.kube import cel
from walras.kube.cel.functions import STANDARD
from walras.kube.cel.values import Duration, UInt, plain

DATA: dict[str, Any] = {
    "a": {"b": "x"},
    "list": [1, 2, 3],
    "names": ["b", "a"],
    "map": {"k": "v", "l": "w"},
    "none": None,
    "big": 2**62,
    "half": 0.5,
}


def run(source: str, **variables: Any) -> Any:
    given = {"self": DATA, **variables}
    return cel.compile_dynamic(source, tuple(sorted(given))).program.run(given)[0]


@pytest.mark.parametrize(
    "source",
    [
        "1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 2 == -1 && 7.0 / 2.0 == 3.5",
        "dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1) != dyn('1') && 2 > 1.5 && dyn(true) != 1",
        "'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && b'a' + b'b' == b'ab'",
        "1 in [1, 2] && !(3 in [1, 2]) && 'k' in self.map && dyn(1.0) in [1]",
        "has(self.a.b) && !has(self.a.c) && self.?a.?c.orValue('d') == 'd' && self.a[?'b'].value() == 'x'",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 2)",
        "self.list.map(x, x * 2) == [2, 4, 6] && self.list.filter(x, x > 1) == [2, 3]",
        "self.list.map(x, x > 1, x * 2) == [4, 6] && self.map.all(k, self.map[k] != '')",
        "self.list.all(i, x, x == i + 1) && self.map.transformList(k, v, k + v).size() == 2",
        "self.map.transformMap(k, v, v + '!')['k'] == 'v!' && self.map.exists(k, v, v == 'w')",
        "['x', 'y'].transformMapEntry(i, v, {v: i}) == {'x': 0, 'y': 1}",
        # What fails does not matter where the other side decides.
        "(1 / 0 > 0) || true",
        "!((1 / 0 > 0) && false)",
        "[0, 1].exists(x, 1 / x == 1)",
        "true ? true : (1 / 0 == 0)",
        "size('äö') == 2 && 'äö'.size() == 2 && size(b'äö') == 4 && size({1: 2}) == 1",
        "'hello'.matches('^h.*o$') && 'hello'.contains('ell') && 'hello'.startsWith('he')",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'Ab'.lowerAscii() == 'ab'",
        "'banana'.replace('a', 'o', 2) == 'bonona' && 'abc'.substring(1) == 'bc' && ' a '.trim() == 'a'",
        "'abc'.indexOf('c') == 2 && 'abcb'.lastIndexOf('b') == 3 && 'abc'.charAt(1) == 'b'",
        "'%s: %d%% %.2f %x'.format(['a', 5, 1.0, 255]) == 'a: 5% 1.00 ff'",
        "timestamp('2024-02-29T12:30:45.5Z').getMonth() == 1",
        "timestamp('2024-02-29T23:30:45Z').getHours('+01:00') == 0",
        "timestamp('9999-12-31T23:59:59Z').getFullYear('+01:00') == 10000",
        "timestamp('0001-01-01T00:00:00Z').getFullYear('-01:00') == 0",
        # As doubles, which cannot tell them apart.
        "18446744073709551615u == dyn(18446744073709551616.0) && 9007199254740993 <= 9007199254740992.0",
        "timestamp('2024-02-29T00:00:00Z') - timestamp('2024-02-28T00:00:00Z') == duration('24h')",
        "duration('1h30m').getMinutes() == 90 && string(duration('1.5s')) == '1.5s'",
        "string(timestamp('2024-02-29T12:30:45Z')) == '2024-02-29T12:30:45Z'",
        "int('42') == 42 && uint(3) == 3u && double('1.5') == 1.5 && bool('true') && string(true) == 'true'",
        "string(1.0) == '1' && string(1e6) == '1e+06' && string(0.1) == '0.1' && string(12345.0) == '12345'",
        "type(1) == int && type('') == string && type([]) == list && type(null) == null_type",
        "type(timestamp('2024-01-01T00:00:00Z')) == google.protobuf.Timestamp",
        r"'\u00e4' == 'ä' && r'\n' == '\\n' && b'\xff'.size() == 1",
        "self.names.isSorted() == false && [3, 1].sort() == [1, 3] && [1, 2].sum() == 3 && [1, 2].max() == 2",
        "[1, 1, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2] && [1, 2, 3].slice(1, 2) == [2]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
        "'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1'.find('[0-9]') == '1'",
        "quantity('1Gi').isGreaterThan(quantity('1G'))",
        "quantity('100m').add(quantity('0.9')).asInteger() == 1",
        "quantity('1k').sub(1).compareTo(quantity('999')) == 0",
        "url('https://u@h:1/p?q=1&q=2').getHost() == 'h:1' && url('/p').getScheme() == ''",
        "url('https://h/p?q=1&q=2').getQuery() == {'q': ['1', '2']} && !isURL('a b')",
        "ip('fe80::1').isLinkLocalUnicast() && ip('127.0.0.1').family() == 4 && !isIP('1.2.3')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').ip() == ip('10.0.0.0')",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2",
        "semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && !isSemver('1.2')",
        "!format.dns1123Label().validate('abc').hasValue()",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "optional.of(1).optMap(x, x + 1) == optional.of(2) && !optional.none().hasValue()",
        "[?self.?a.?zz, 1] == [1] && {?'a': optional.none()} == {}",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
        "dyn({1: 'a'})[1.0] == 'a' && self.none == null && [dyn(1), null].size() == 2",
    ],
)
def test_what_holds_in_cel_holds_here(source: str) -> None:
    assert run(source) is True


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("self.big + self.big", "integer overflow"),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("uint(1) - uint(2)", "unsigned integer overflow"),
        ("self.zz", "no such key: zz"),
        ("self.list[3]", "index out of bounds: 3"),
        ("self.a < 1", "no such overload"),
        ("self.list.all(x, self.a)", "no such overload"),
        ("int('x')", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("timestamp(self.a.b)", "cannot parse"),
        ("ip(self.a.b)", "unable to parse IP"),
        ("optional.none().value()", "optional.none() dereference"),
        ("self.a.b.matches('(' + self.a.b)", "error parsing regexp"),
        ("{'a': 1, 'a': 2}.size()", "already exists"),
    ],
)
def test_what_fails_says_why(source: str, said: str) -> None:
    with pytest.raises(cel.CelError, match=None) as failed:
        run(source)
    assert said in str(failed.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "self.",
            "ERROR: <input>:1:6: Syntax error: no viable alternative at input '.<EOF>'\n | self.\n | .....^",
        ),
        ("1 + 'a'", "1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("nope(1)", "1:5: undeclared reference to 'nope' (in container '')"),
        ("nope", "1:1: undeclared reference to 'nope' (in container '')"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("1.all(x, true)", "cannot be range of a comprehension"),
        ("'a'.b", "type 'string' does not support field selection"),
        ("cel.bind(x, 1, x)", "undeclared reference to 'cel'"),
        ("if", "reserved identifier: if"),
        ("self.matches('(')", "invalid matches argument"),
        ("(" * 300 + "1" + ")" * 300, "expression recursion limit exceeded: 250"),
        ("1" + "0" * 19, "invalid int literal"),
        ("'\\q'", "invalid escape sequence"),
    ],
)
def test_what_is_no_expression_is_shown_with_its_place(source: str, said: str) -> None:
    with pytest.raises(cel.SourceError) as refused:
        cel.compile_dynamic(source, ("self",))
    assert said in str(refused.value)


def test_a_long_chain_is_no_deep_one() -> None:
    assert run(" || ".join(["false"] * 3000 + ["true"])) is True
    assert run(" + ".join(["1"] * 200)) == 200


DOUBLING = "['aaaa']" + ".map(a, a+a+a+a+a+a+a+a+a+a)" * 9 + ".size() > 0"
LONG = {"text": "a" * 100_000, "list": list(range(9000)), "map": {str(n): [{"a": 1}] for n in range(2000)}}


@pytest.mark.parametrize(
    "source",
    [
        DOUBLING,
        "self.text.replace('', self.text).replace('', self.text).size() > 0",
        "self.list.all(x, self.text.matches('(a+)+b') || true)",
        "self.list.map(x, self.list.map(y, self.text).join(',')).size() > 0",
        "self.list.all(x, self.list.all(y, x + y >= 0))",
        "self.list.all(x, self.map.map(k, k) != [])",
        "lists.range(2000000).size() > 0",
        "self.list.all(x, '%s'.format([self.list]) != '')",
        "[self.list, self.list].flatten().map(x, [self.list, self.list].flatten()).size() > 0",
    ],
)
def test_an_expression_that_could_take_all_there_is_ends_early(source: str) -> None:
    program = cel.compile_dynamic(source, ("self",)).program
    with pytest.raises(cel.CostExceeded, match="actual cost limit exceeded"):
        program.run({"self": LONG}, deadline=time.perf_counter() + 0.3)


def test_adding_lists_to_themselves_does_not_fill_memory() -> None:
    doubled = "self.list" + ".map(x, self.list).flatten()" + ".map(x, [x, x, x, x]).flatten()" * 9
    with pytest.raises(cel.CostExceeded):
        cel.compile_dynamic(doubled + ".size() > 0", ("self",)).program.run({"self": LONG})


@pytest.mark.parametrize(
    ("source", "cost"),
    [
        # Variables and selections cost one each, calls one, and so does what an operator goes over.
        ("self.a.b == 'x'", 4),
        ("self.list.all(x, x > 0)", 2 + 3 * (3 + 2) + 1),
        ("[1, 2].size() == 2", 12),
        ("self.a.b.contains('x')", 3 + 1),
        ("true || self.a.b == 'x'", 0),
    ],
)
def test_costs_are_those_of_cel_go(source: str, cost: int) -> None:
    assert cel.compile_dynamic(source, ("self",)).program.run({"self": DATA})[1] == cost


def test_values_become_json() -> None:
    assert plain([UInt(1), {True: b"a"}, Duration(1_500_000_000)]) == [1, {"true": "YQ=="}, "1.5s"]
    assert STANDARD["size"]("abc") == 3


def test_a_bound_value_is_read_once_and_only_where_it_is_needed() -> None:
    bound = cel.compile_dynamic("cel.bind(x, self.missing, false && x)", ("self",), binds=True)
    assert bound.program.run({"self": {}})[0] is False
    twice = cel.compile_dynamic("cel.bind(x, self.a.b, x + x)", ("self",), binds=True)
    once, cost = twice.program.run({"self": {"a": {"b": 2}}})
    # A list, three steps to the value, two readings and a sum.
    assert (once, cost) == (4, 10 + 3 + 2 + 1)
    nested = "[1, 2].map(i, cel.bind(x, i * 10, [1].map(j, x + j)))"
    assert cel.compile_dynamic(nested, (), binds=True).program.run({})[0] == [[11], [21]]
    with pytest.raises(cel.SourceError, match="undeclared reference to 'cel'"):
        cel.compile_dynamic("cel.bind(x, 1, x)", ())
