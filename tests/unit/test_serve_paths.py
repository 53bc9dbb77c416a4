"""The path grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.core.errors import BadRequest
from walras.kube.serve.paths import Route, parse


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/healthz", Route("health", name="healthz")),
        ("/clusters/a/readyz", Route("health", "a", name="readyz")),
        ("/clusters/a/readyz/ping", Route("health", "a", name="readyz")),
        ("/version", Route("version")),
        ("/clusters/a/version", Route("version", "a")),
        ("/clusters/a", Route("root", "a")),
        ("/clusters/a/", Route("root", "a")),
        ("/clusters/a/api", Route("api", "a")),
        ("/clusters/a/api/", Route("api", "a")),
        ("/clusters/a/apis", Route("apis", "a")),
        ("/clusters/a/apis/apps", Route("group", "a", "apps")),
        ("/clusters/a/api/v1", Route("resources", "a", "", "v1")),
        ("/clusters/a/apis/apps/v1", Route("resources", "a", "apps", "v1")),
        ("/clusters/a/openapi/v3/apis/apps/v1", Route("openapi", "a", rest="v3/apis/apps/v1")),
        ("/clusters/a/walras/v1/cost", Route("walras", "a", rest="cost")),
    ],
)
def test_what_is_not_a_resource_has_a_place_of_its_own(path: str, route: Route) -> None:
    assert parse(path) == route


@pytest.mark.parametrize(
    ("path", "namespace", "plural", "name", "subresource"),
    [
        ("/clusters/a/api/v1/pods", "", "pods", "", ""),
        ("/clusters/a/api/v1/nodes/n", "", "nodes", "n", ""),
        ("/clusters/a/api/v1/namespaces/d/pods", "d", "pods", "", ""),
        ("/clusters/a/api/v1/namespaces/d/pods/p", "d", "pods", "p", ""),
        ("/clusters/a/api/v1/namespaces/d/pods/p/status", "d", "pods", "p", "status"),
        ("/clusters/a/api/v1/namespaces", "", "namespaces", "", ""),
        ("/clusters/a/api/v1/namespaces/d", "", "namespaces", "d", ""),
        ("/clusters/a/api/v1/namespaces/d/status", "", "namespaces", "d", "status"),
        ("/clusters/a/api/v1/namespaces/d/finalize", "", "namespaces", "d", "finalize"),
        ("/clusters/a/api/v1/namespaces/status/pods", "status", "pods", "", ""),
    ],
)
def test_core_resources_are_found_with_or_without_a_namespace(
    path: str, namespace: str, plural: str, name: str, subresource: str
) -> None:
    assert parse(path) == Route("resource", "a", "", "v1", namespace, plural, name, subresource)


def test_resources_of_groups_are_found() -> None:
    found = parse("/clusters/fleet/apis/walras.dev/v1alpha1/agents/one/status")
    assert found == Route("resource", "fleet", "walras.dev", "v1alpha1", "", "agents", "one", "status")


def test_names_are_decoded_and_the_tail_behind_a_proxy_is_not() -> None:
    found = parse("/clusters/a/api/v1/namespaces/d/pods/p%3A80/proxy/x%2Fy/z")
    assert (found.name, found.subresource, found.rest) == ("p:80", "proxy", "/x%2Fy/z")


@pytest.mark.parametrize(
    ("behind", "rest"),
    [
        ("", ""),
        ("/", "/"),
        ("/x/", "/x/"),
        ("//", "//"),
        ("/proxy/x", "/proxy/x"),
        ("/a/b/c/d/e", "/a/b/c/d/e"),
    ],
)
@pytest.mark.parametrize("before", ["", "/clusters/proxy"])
def test_what_is_behind_a_proxy_is_kept_whatever_else_is_called_so(
    before: str, behind: str, rest: str
) -> None:
    found = parse(f"{before}/api/v1/namespaces/proxy-1/services/proxy/proxy{behind}")
    assert (found.namespace, found.name, found.subresource) == ("proxy-1", "proxy", "proxy")
    assert found.rest == rest
    assert parse(f"{before}/api/v1/nodes/proxy/proxy{behind}").rest == rest
    assert parse(f"{before}/apis/g/v1/namespaces/d/things/t/proxy{behind}").rest == rest


@pytest.mark.parametrize(
    "path",
    [
        "/clusters/a/api/v1/namespaces/../pods",
        "/clusters/%2e%2e/api/v1/pods",
        "/clusters/a/api/v1/namespaces/d/pods/a%2Fb",
        "/clusters/a/api/v1/namespaces//pods",
        "/clusters/a/api/v1/pods/%00",
        "/clusters/a/apis/apps/v1/namespaces/d/pods/%2E",
    ],
)
def test_a_segment_that_no_name_can_be_is_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        parse(path)


@pytest.mark.parametrize(
    "path",
    ["/", "/clusters", "/clusters/", "/nonsense", "/clusters/a/metrics"],
)
def test_everything_else_is_unknown_or_has_no_cluster(path: str) -> None:
    assert parse(path).place in ("unknown", "root") and parse(path).cluster in ("", "a")


@given(st.text(alphabet="/abc.%2F01:clustersapinamespaces", max_size=60))
def test_no_path_is_a_crash(text: str) -> None:
    try:
        route = parse("/" + text)
    except BadRequest:
        return
    assert "/" not in route.cluster + route.namespace + route.plural + route.name
