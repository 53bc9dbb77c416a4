"""The API server as pods see it."""

from __future__ import annotations

import pytest

from walras.kube.serve.callers import UNWRITTEN
from walras.kube.serve.inside import InsideAPI


async def _nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError("nobody calls it")


@pytest.mark.parametrize(
    "path",
    ["/api/v1", "/clusters/two/api/v1", "/clusters/oneandmore/api", "/clusters/%6fne/api", "/clusters"],
)
def test_every_path_of_a_pod_is_below_its_own_cluster(path: str) -> None:
    told = InsideAPI(_nothing).told({"path": path, "raw_path": path.encode()}, "one")
    assert told["raw_path"] == b"/clusters/one" + path.encode() and told["path"] == f"/clusters/one{path}"
    assert told[UNWRITTEN] is True


def test_a_pod_may_write_the_address_of_its_own_cluster_in_full() -> None:
    scope = {"path": "/clusters/one/openid/v1/jwks", "raw_path": b"/clusters/one/openid/v1/jwks"}
    assert InsideAPI(_nothing).told(scope, "one") == scope
