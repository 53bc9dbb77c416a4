"""RBAC: who covers rules can do all that they allow, and no stored shape or request breaks a decision."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from walras.core.errors import BadRequest
from walras.kube.access import rules
from walras.kube.access.impersonation import wanted
from walras.kube.access.words import Attributes, account_name, account_of

WORDS = st.sampled_from(["*", "a", "b", "c"])
RESOURCES = st.sampled_from(["*", "pods", "pods/log", "*/log", "nodes", "nodes/log"])
URLS = st.sampled_from(["*", "/a", "/a*", "/a/*", "/ab", "/b"])
NAMES = st.sampled_from(["x", "y"])


def listed(words: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(words, min_size=least, max_size=3)


RESOURCE_RULES = st.fixed_dictionaries(
    {"verbs": listed(WORDS), "apiGroups": listed(WORDS), "resources": listed(RESOURCES)},
    optional={"resourceNames": listed(NAMES, 0)},
)
URL_RULES = st.fixed_dictionaries({"verbs": listed(WORDS), "nonResourceURLs": listed(URLS)})
RULES = st.lists(st.one_of(RESOURCE_RULES, URL_RULES), max_size=4)
ASKED = st.one_of(
    st.builds(
        Attributes,
        verb=st.sampled_from("abcd"),
        group=st.sampled_from("abcd"),
        resource=st.sampled_from(["pods", "nodes", "secrets"]),
        subresource=st.sampled_from(["", "log", "status"]),
        name=st.sampled_from(["", "x", "y", "z"]),
    ),
    st.builds(
        Attributes, verb=st.sampled_from("abcd"), path=st.sampled_from(["/", "/a", "/ab", "/a/b", "/b", "/c"])
    ),
)


@given(RULES, RULES, ASKED)
def test_who_covers_rules_can_do_all_that_they_allow(
    held: list[dict[str, Any]], given_: list[dict[str, Any]], asked: Attributes
) -> None:
    """So that nobody gets by a role what its maker could not do."""
    if rules.missing(held, given_):
        return
    if any(rules.allows(rule, asked) for rule in given_):
        assert any(rules.allows(rule, asked) for rule in held)


@given(RULES)
def test_rules_cover_themselves_and_everything_covers_them(given_: list[dict[str, Any]]) -> None:
    assert rules.missing(given_, given_) == []
    assert rules.missing(rules.EVERYTHING, given_) == []


@given(RULES, RULES)
def test_what_is_missing_is_what_has_to_be_added(
    held: list[dict[str, Any]], given_: list[dict[str, Any]]
) -> None:
    lacking = rules.missing(held, given_)
    assert rules.missing([*held, *lacking], given_) == []
    assert rules.missing([*held, *rules.compact(lacking)], given_) == []
    assert all(rules.text(rule).startswith("{") for rule in rules.compact(lacking))


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_name_of_an_account_is_read_back_or_is_none(namespace: str, name: str) -> None:
    read = account_of(account_name(namespace, name))
    assert read in ((namespace, name), None)
    if namespace and name and ":" not in namespace + name:
        assert read == (namespace, name)


FAMILY = (
    b"impersonate-user", b"Impersonate-User", b"impersonate-group", b"impersonate-uid", b"impersonate-x",
    b"impersonate-", b"impersonate-extra-a%2fb", b"host",
)  # fmt: skip
HEADERS = st.lists(st.tuples(st.sampled_from(FAMILY), st.binary(max_size=10)), max_size=5)


@given(HEADERS)
def test_headers_name_one_user_or_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """Nothing of the family is passed over: that would be to act with more rights than asked for."""
    named = [name for name, _ in headers if name.lower().startswith(b"impersonate-")]
    try:
        found = wanted(headers)
    except BadRequest:
        assert named
        return
    assert (found is None) == (not named)
    if found is not None:
        assert found.user
        counted = bool(found.uid) + len(found.groups) + sum(map(len, found.extra.values()))
        assert counted <= len(named) - 1
