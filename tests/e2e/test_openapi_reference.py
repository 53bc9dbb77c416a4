"""OpenAPI v2 in protobuf: as the real kube-apiserver makes it of the same document in JSON."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import gnostic, reference

from walras.kube import openapi_protobuf as protobuf

WHY = reference.missing("etcd", "kube-apiserver")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(WHY), reason=WHY)]


def test_a_document_becomes_the_protobuf_that_the_real_server_makes_of_it(tmp_path: Path) -> None:
    with reference.running(tmp_path) as running:
        headers = {"authorization": f"Bearer {running.token}"}
        verify = ssl.create_default_context(cafile=running.ca_file)
        with httpx.Client(base_url=running.url, headers=headers, verify=verify, trust_env=False) as client:
            plain = client.get("/openapi/v2")
            theirs = client.get("/openapi/v2", headers={"accept": protobuf.MEDIA_TYPES[0]})
    assert theirs.headers["content-type"] == protobuf.MEDIA_TYPES[-1]
    whole: dict[str, Any] = json.loads(plain.content)
    ours = protobuf.document(
        whole["info"],
        whole["securityDefinitions"],
        whole["security"],
        protobuf.paths(whole["paths"]),
        protobuf.definitions(whole["definitions"]),
    )
    left, right = gnostic.document(theirs.content), gnostic.document(ours)
    for part in ("paths", "definitions"):
        assert left[part].keys() == right[part].keys()
        for name in left[part]:
            assert left[part][name] == right[part][name], name
    assert left == right
