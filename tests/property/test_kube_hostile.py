"""Whatever a client sends, it is answered: refused in words, with no fault and nothing of another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import WalrasError
from walras.core.quantity import canonical, parse_duration_ms, parse_milli, parse_quantity
from walras.kube import bodies, patching, selectors
from walras.kube.api import API
from walras.kube.context import Context, Identity
from walras.kube.protobuf import decode as decode_protobuf
from walras.kube.registry_builtin import for_agents
from walras.kube.serve import negotiate, paths
from walras.kube.serve.app import Application
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.kube.tables import jsonpath
from walras.kube.verbs import Verbs

SECRET = "of-another-agent"
PATCHES = (patching.JSON, patching.MERGE, patching.STRATEGIC)

odd_text = st.text(max_size=30) | st.sampled_from(["", "..", "%00", "a/b", "x" * 300, "null", "-1", "9" * 30])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds with some bytes cut out, put in or turned over."""

    def change(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for place, cut, put in edits:
            at = place % (len(seed) + 1)
            seed = seed[:at] + put + seed[at + cut :]
        return seed

    edits = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 9), st.binary(max_size=6)), max_size=5)
    return st.builds(change, st.sampled_from(seeds), edits)


POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default", "labels": {"a": "b"}, "generateName": "x-"},
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "command": ["true"],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "ports": [{"containerPort": 80}],
                "env": [{"name": "E", "value": "1"}],
            }
        ],
        "tolerations": [{"key": "k", "operator": "Exists"}],
    },
}
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "foos.x.io"},
    "spec": {
        "group": "x.io",
        "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo", "listKind": "FooList", "singular": "foo"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-validations": [{"rule": "true"}]}
                        },
                    }
                },
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
            }
        ],
    },
}
# kubectl create job j1 --image=busybox -- sh -c "echo hi"
PROTOBUF = bytes.fromhex(
    "6b3873000a0f0a0862617463682f763112034a6f62128b010a120a026a3112001a0022002a00320038004200126b32690a10"
    "0a0012001a0022002a00320038004200125512320a026a31120762757379626f781a0273681a022d631a076563686f206869"
    "2a0042006a007200800100880100900100a201001a054e65766572320042004a0052005800600068008201008a01009a0100"
    "c201001a082000280030003a001a002200"
)
YAML_POD = (
    b"apiVersion: v1\nkind: Pod\nmetadata: &m {name: p, labels: {a: b}}\nspec: {containers: [{name: c}]}\n"
)


BODIES = [json.dumps(POD).encode(), json.dumps(CRD).encode(), YAML_POD, PROTOBUF]
MEDIA = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
operations = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"])},
        optional={
            "path": st.sampled_from(["", "/", "/spec", "/spec/containers/0", "/spec/containers/-", "/~2", 1]),
            "from": st.sampled_from(["", "/spec", "/metadata"]),
            "value": json_values,
        },
    ),
    max_size=4,
)
strategic_patches = st.builds(
    lambda spec: {"spec": spec},
    st.dictionaries(
        st.sampled_from(
            [
                "containers",
                "$patch",
                "$retainKeys",
                "$setElementOrder/containers",
                "$deleteFromPrimitiveList/a",
            ]
        ),
        json_values,
    ),
)


def outcome(read: Callable[[], Any]) -> Any:
    """What it gives, or its refusal."""
    try:
        return read()
    except WalrasError as refusal:
        return refusal


@settings(max_examples=300, deadline=None)
@given(mutated(BODIES) | st.binary(max_size=60), st.sampled_from([*MEDIA, "text/x", ""]))
def test_a_body_is_read_as_an_object_or_refused(body: bytes, media: str) -> None:
    read = outcome(lambda: asyncio.run(bodies.decode(body, media)).value)
    assert isinstance(read, dict | WalrasError)


@settings(max_examples=300, deadline=None)
@given(mutated([PROTOBUF]))
def test_protobuf_is_read_as_an_object_or_refused(body: bytes) -> None:
    assert isinstance(outcome(lambda: decode_protobuf(body)), dict | WalrasError)


@settings(max_examples=300, deadline=None)
@given(mutated([b"a=b,c!=d", b"x in (a,b),!y", b"k notin (v)", b"status.phase!=Running,metadata.name=x"]))
def test_a_selector_is_read_or_refused(raw: bytes) -> None:
    text = raw.decode("latin-1")
    labels = outcome(lambda: selectors.parse_labels(text).matches({"a": "b"}))
    fields = outcome(lambda: selectors.parse_fields(text, for_agents()["pods"]).matches(POD))
    assert isinstance(labels, bool | WalrasError)
    assert isinstance(fields, bool | WalrasError)


@settings(max_examples=200, deadline=None)
@given(
    mutated([b".spec.a", b".a[0].b", b"{.items[*].x}", b".a[?(@.b==1)].c", b"..x", b".a['b.c']", b".a[1:2]"])
)
def test_a_json_path_is_read_or_refused(raw: bytes) -> None:
    try:
        path = jsonpath.parse(raw.decode("latin-1"))
    except jsonpath.PathFault:
        return
    assert isinstance(path.find(POD), list)


@settings(max_examples=200, deadline=None)
@given(odd_text | st.sampled_from(["1Ki", "1e3", "100m", "1.5Gi", "-1", "1e999", "1e-999"]))
def test_quantities_and_durations_are_read_or_refused(text: str) -> None:
    for read in (parse_quantity, parse_milli, parse_duration_ms):
        assert isinstance(outcome(partial(read, text)), int | WalrasError)
    assert isinstance(outcome(lambda: canonical(text)), str | WalrasError)


@settings(max_examples=200, deadline=None)
@given(odd_text)
def test_paths_and_accept_headers_are_read_or_refused(text: str) -> None:
    route = outcome(lambda: paths.parse("/" + quote(text, safe="/%")))
    assert isinstance(route, paths.Route | WalrasError)
    shape = outcome(lambda: negotiate.representation(text))
    assert isinstance(shape, negotiate.Representation | WalrasError)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATCHES), operations | json_values | strategic_patches)
def test_a_patch_is_applied_or_refused(media: str, patch: Any) -> None:
    body, pod = json.dumps(patch).encode(), json.loads(json.dumps(POD))
    context = Context(Identity("agent:one", (), "one"), "one")
    patched = outcome(lambda: patching.patcher(context, for_agents()["pods"], body, media)(pod))
    assert isinstance(patched, dict | WalrasError)


class Tokens:
    def identify(self, token: str) -> Identity | None:
        return Identity("agent:one", (), "one") if token == "one" else None


places = st.sampled_from(
    [
        "api/v1/namespaces/default/pods", "api/v1/namespaces/default/pods/p", "api/v1/pods",
        "api/v1/namespaces/default/configmaps", "api/v1/namespaces/default/configmaps/here",
        "apis/apiextensions.k8s.io/v1/customresourcedefinitions", "apis/x.io/v1/namespaces/default/foos",
        "apis/coordination.k8s.io/v1/namespaces/default/leases", "api/v1/namespaces/default/pods/p/status",
        "apis/walras.dev/v1alpha1/namespaces/default/bids", "api/v1/namespaces/default/pods/p/eviction",
        "apis/apps/v1/namespaces/default/deployments/d/scale", "api/v1/namespaces/default/pods/p/binding",
        "apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", "openapi/v3", "api",
    ]
)  # fmt: skip
queries = st.dictionaries(
    st.sampled_from(
        ["limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector", "fieldSelector",
         "dryRun", "fieldManager", "fieldValidation", "force", "propagationPolicy",
         "gracePeriodSeconds", "pretty"]
    ),
    st.sampled_from(["1", "0", "All", "Strict", "Exact", "NotOlderThan", "a=b", "Orphan", "e30", "-1"])
    | odd_text,
    max_size=3,
)  # fmt: skip
sent = st.tuples(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    places,
    queries,
    st.sampled_from([*MEDIA, *PATCHES, patching.APPLY]),
    st.sampled_from(["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io", "*/*", "text/html"]),
    mutated([*BODIES, b"", b"[]", b"{}"]) | json_values.map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(sent, min_size=1, max_size=12))
def test_no_request_is_answered_with_a_fault_or_with_what_is_anothers(
    requests: list[tuple[str, str, dict[str, str], str, str, bytes]],
) -> None:
    async def run() -> None:
        store, clock = SqliteStore(MEMORY), VirtualClock()
        try:
            api = API(store, clock, SequenceIds())
            for cluster in ("one", "two"):
                await api.create_cluster(cluster)
                await api.create(cluster, "namespaces", {"metadata": {"name": "default"}})
                here = {"metadata": {"name": "here", "namespace": "default"}, "data": {"of": cluster}}
                await api.create(cluster, "configmaps", here)
            await api.edit("two", "configmaps", "default", "here", lambda it: it["data"].update(of=SECRET))
            app = Application(Verbs(api), Tokens(), clock)
            transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
            headers = {"authorization": "Bearer one"}
            async with httpx.AsyncClient(transport=transport, base_url="https://w", headers=headers) as http:
                for method, place, query, media, accept, body in requests:
                    answer = await http.request(
                        method,
                        f"/clusters/one/{place}",
                        params=query,
                        content=body,
                        headers={"content-type": media, "accept": accept},
                    )
                    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
                    assert SECRET not in answer.text
                    if answer.status_code >= 400 and "json" in answer.headers.get("content-type", ""):
                        assert method == "HEAD" or answer.json()["message"]
        finally:
            store.close()

    asyncio.run(run())
