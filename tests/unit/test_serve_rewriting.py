"""Pages behind a proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.kube.serve.rewriting import rewritten

BASE = b"/api/v1/namespaces/d/pods/p/proxy"


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        (b'<a href="/x">t</a>', b'<a href="%b/x">t</a>'),
        (b"<IMG alt='' SRC=/i.png><p>", b"<IMG alt='' SRC=%b/i.png><p>"),
        (b"<img src='/a' longdesc = \"/b\"/>", b"<img src='%b/a' longdesc = \"%b/b\"/>"),
        (b'<a\nhref="/x"\n>', b'<a\nhref="%b/x"\n>'),
        (b'<form action="/"><input/value=/x formaction=/y>',
         b'<form action="%b/"><input/value=/x formaction=%b/y>'),
        (b'<script src="/s.js">"<a href=\'/no\'>"</script><a href=/yes>',
         b'<script src="%b/s.js">"<a href=\'/no\'>"</script><a href=%b/yes>'),
    ],
)  # fmt: skip
def test_addresses_of_the_host_lead_below_the_proxy(page: bytes, wanted: bytes) -> None:
    assert rewritten(page, BASE) == wanted.replace(b"%b", BASE)


@pytest.mark.parametrize(
    "page",
    [
        b"", b"plain /text <", b"<a href=relative>", b'<a href="//else/x">', b'<a href="https://else/x">',
        b"<!-- <a href=/x> --><b>", b"<!-- <a href=/x>", b'<p href="/x">', b'<a href="/x', b"< a href=/x>",
        b"</a href=/x>", b'<a title="href=/x">', b"<style>a{b:'<a href=/x>'}", b'<a ="/x">', b"<a href>",
        b'<a href="' + BASE + b'/x">',
    ],
)  # fmt: skip
def test_everything_else_stays_as_it_is(page: bytes) -> None:
    assert rewritten(page, BASE) == page


@given(
    st.lists(
        st.sampled_from(
            [b"<a", b" href", b"=", b'"', b"'", b"/x", b">", b"<!--", b"-->", b"<script", b"</", b"\n", b"x"]
        )
    )
)
def test_nothing_is_lost_of_any_page(words: list[bytes]) -> None:
    page = b"".join(words)
    assert rewritten(page, BASE).replace(BASE, b"") == page


def test_a_hostile_page_takes_no_longer_than_its_length_asks() -> None:
    """A quadratic scanner would take minutes for these."""
    for word in (b"<a '", b"<!--", b"<", b"<a ", b"<script>", b"<a =", b"<a href = "):
        page = word * 500_000
        assert len(rewritten(page, BASE)) == len(page)
