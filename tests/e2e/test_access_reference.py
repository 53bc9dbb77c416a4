"""Access control answers as the real kube-apiserver does: codes, reasons, messages, default roles."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import reference
from support.access import ISSUERS, RBAC, Place, rule, tell
from support.reference import Reference

from walras.kube.access import bootstrap
from walras.kube.access.words import GROUP

WHY = reference.missing("etcd", "kube-apiserver")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(WHY), reason=WHY)]

Object = dict[str, Any]
HERE = "/api/v1/namespaces/default"
MAY = "/apis/authorization.k8s.io/v1"
WHO = "/apis/authentication.k8s.io/v1"
SIGN = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
LOCAL = f"{MAY}/namespaces/default/localsubjectaccessreviews"
TOKEN = f"{HERE}/serviceaccounts/robot/token"


class Step(NamedTuple):
    """A request, in somebody's name or, for "", as a member of system:masters."""

    who: str
    method: str
    path: str
    body: Any = None


def csr(*groups: str) -> str:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "bob")]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    signed = made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


def signing(name: str, *groups: str, **spec: Any) -> Object:
    wanted = {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    return {"metadata": {"name": name}, "spec": {"request": csr(*groups), **wanted, **spec}}


def role(name: str, *rules: Object, **more: Any) -> Object:
    return {"metadata": {"name": name}, "rules": list(rules), **more}


def binding(name: str, role: str, *subjects: Object, kind: str = "ClusterRole") -> Object:
    reference = {"apiGroup": GROUP, "kind": kind, "name": role}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": list(subjects)}


def asked(verb: str = "get", **more: str) -> Object:
    return {"resourceAttributes": {"verb": verb, "resource": "pods", **more}}


def decided(*kinds: str) -> Object:
    return {"status": {"conditions": [{"type": kind, "status": "True", "reason": "x"} for kind in kinds]}}


ALICE = {"kind": "User", "name": "alice", "apiGroup": GROUP}
EVERY = rule("*", "*", "*")
ROLES, BINDINGS = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"
LOCAL_ROLES, LOCAL_BINDINGS = (f"{RBAC}/namespaces/default/{plural}" for plural in ("roles", "rolebindings"))
AGGREGATED = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
REQUESTS = "certificatesigningrequests"

STEPS = [
    Step("", "POST", f"{HERE}/serviceaccounts", {"metadata": {"name": "robot"}}),
    Step("", "POST", ROLES, role("deputy", rule("get list watch create update patch delete", "*", GROUP),
                                 rule("get list", "pods"))),
    Step("", "POST", BINDINGS, binding("deputy", "deputy", ALICE)),
    # What is refused, in which words.
    *(Step("alice", "GET", path) for path in (
        f"{HERE}/pods", f"{HERE}/secrets", "/api/v1/secrets", f"{HERE}/secrets/x", "/metrics", "/", "/apis",
        f"{HERE}/pods/x/log", f"{HERE}/configmaps?watch=1", "/apis/nosuch/v1/things", "/api/v1/nosuch",
        "/api/v1/namespaces/default", "/api/v1/nodes/n/proxy/x", "/.well-known/openid-configuration",
    )),
    Step("alice", "POST", f"{HERE}/pods/x/eviction", {}),
    Step("alice", "DELETE", f"{HERE}/configmaps"),
    Step("alice", "PUT", "/api/v1/namespaces/default/finalize", {}),
    # Nobody gives more than they have.
    Step("alice", "POST", ROLES, role("more", rule("get delete", "pods secrets"))),
    Step("alice", "POST", ROLES, role("more", {"verbs": ["get"], "nonResourceURLs": ["/x", "/y"]})),
    Step("alice", "POST", ROLES, role("more", rule("get", "pods", "", "a"), rule("delete", "pods", "", "a"))),
    Step("alice", "POST", ROLES, role("ok", rule("get", "pods", "", "a"))),
    Step("alice", "PUT", f"{ROLES}/ok", role("ok", EVERY)),
    Step("alice", "PATCH", f"{ROLES}/deputy", {"rules": [EVERY]}),
    Step("alice", "POST", ROLES, role("agg", aggregationRule=AGGREGATED)),
    Step("alice", "POST", LOCAL_ROLES, role("r", rule("get", "secrets"))),
    Step("alice", "POST", LOCAL_ROLES, role("r", {"verbs": ["get"], "nonResourceURLs": ["/x"]})),
    Step("alice", "POST", BINDINGS, binding("b", "cluster-admin", ALICE)),
    Step("alice", "POST", BINDINGS, binding("b", "nosuch", ALICE)),
    Step("alice", "POST", LOCAL_BINDINGS, binding("b", "nosuch", ALICE, kind="Role")),
    Step("alice", "POST", LOCAL_BINDINGS, binding("b", "deputy", ALICE)),
    Step("alice", "PATCH", f"{LOCAL_BINDINGS}/b", {"subjects": [{**ALICE, "name": "eve"}]}),
    Step("", "PATCH", f"{LOCAL_BINDINGS}/b", {"roleRef": {"name": "view"}}),
    # What a role and a binding have to be.
    Step("", "POST", ROLES, role("bad", {"verbs": [], "apiGroups": [""], "resources": ["pods"]})),
    Step("", "POST", ROLES, role("bad", {"verbs": ["get"]})),
    Step("", "POST", ROLES, role("bad", {**rule("get", "x"), "nonResourceURLs": ["/x"]})),
    Step("", "POST", ROLES, role("a/b", rule("get", "pods"))),
    Step("", "POST", ROLES, role("bad", aggregationRule={"clusterRoleSelectors": []})),
    Step("", "POST", BINDINGS, binding("b", "x", {"kind": "User", "name": ""})),
    Step("", "POST", BINDINGS, binding("b", "x", {"kind": "ServiceAccount", "name": "s"})),
    Step("", "POST", BINDINGS, binding("b", "x", {"kind": "Nobody", "name": "s"})),
    Step("", "POST", BINDINGS, binding("b", "", ALICE)),
    Step("", "POST", BINDINGS, binding("b", "x", ALICE, kind="Role")),
    Step("", "POST", BINDINGS, {"metadata": {"name": "b"},
                                "roleRef": {"kind": "ClusterRole", "name": "x", "apiGroup": "other"}}),
    Step("", "POST", LOCAL_BINDINGS, binding("c", "x", {"kind": "ServiceAccount", "name": "s"})),
    Step("", "POST", LOCAL_BINDINGS, {"metadata": {"name": "d"}, "roleRef": {"kind": "Role", "name": "x"},
                                      "subjects": [{"kind": "Group", "name": "g"}]}),
    # Reviews.
    Step("alice", "POST", f"{MAY}/selfsubjectaccessreviews", {"spec": asked()}),
    Step("alice", "POST", f"{MAY}/selfsubjectaccessreviews", {"spec": asked(namespace="default")}),
    Step("alice", "POST", f"{MAY}/selfsubjectaccessreviews", {"spec": asked("delete", namespace="default")}),
    Step("bob", "POST", f"{MAY}/selfsubjectaccessreviews",
         {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/apis/x"}}}),
    Step("", "POST", f"{MAY}/subjectaccessreviews", {"spec": {"user": "alice", **asked()}}),
    Step("", "POST", LOCAL, {"metadata": {"namespace": "default"},
                             "spec": {"user": "alice", **asked(namespace="default")}}),
    Step("", "POST", f"{MAY}/selfsubjectrulesreviews", {"spec": {}}),
    Step("alice", "POST", f"{WHO}/selfsubjectreviews", {}),
    Step("", "POST", f"{WHO}/tokenreviews", {"spec": {}}),
    Step("", "POST", f"{WHO}/tokenreviews", {"spec": {"token": "x"}}),
    Step("alice", "POST", f"{WHO}/tokenreviews", {"spec": {"token": "x"}}),
    # Tokens.
    *(Step("", "POST", TOKEN, {"spec": spec}) for spec in (
        {"expirationSeconds": 10}, {"expirationSeconds": 2**33},
        {"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}},
        {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "x"}},
    )),
    Step("", "POST", TOKEN, {"metadata": {"name": "x"}, "spec": {}}),
    Step("", "POST", f"{HERE}/serviceaccounts/nosuch/token", {"spec": {}}),
    Step("alice", "POST", TOKEN, {"spec": {}}),
    Step("", "GET", TOKEN),
    # Certificates.
    Step("", "POST", SIGN, signing("c1")),
    Step("", "POST", SIGN, signing("c2", "system:masters")),
    Step("", "POST", SIGN, signing("c3", usages=[])),
    Step("", "POST", SIGN, signing("c4", expirationSeconds=1)),
    Step("", "POST", SIGN, signing("c6", signerName="")),
    Step("", "POST", ROLES, role("csr", rule("*", f"{REQUESTS} {REQUESTS}/approval {REQUESTS}/status",
                                             "certificates.k8s.io"))),
    Step("", "POST", BINDINGS, binding("csr", "csr", ALICE)),
    Step("alice", "PATCH", f"{SIGN}/c1/approval", decided("Approved")),
    Step("alice", "PATCH", f"{SIGN}/c1/status", decided("Failed")),
    Step("", "PATCH", f"{SIGN}/c1/approval", decided("Approved", "Denied")),
    Step("", "PATCH", f"{SIGN}/c1/approval", decided("Approved")),
    Step("", "PATCH", f"{SIGN}/c1/approval", decided()),
]  # fmt: skip


def told(answer: httpx.Response) -> Any:
    """What of an answer has to be the same."""
    try:
        found = answer.json()
    except json.JSONDecodeError:
        return answer.status_code, answer.text[:200]
    if found.get("kind") == "Status":
        # An empty `details` is as good as none.
        details = found.get("details") or None
        return answer.status_code, found.get("reason"), found.get("message"), details
    if answer.request.url.path.endswith(("/apis", "/openid-configuration")):
        return (answer.status_code,)
    kept = {name: found[name] for name in ("roleRef", "subjects", "rules", "status") if name in found}
    return answer.status_code, without_times(kept)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if "Time" not in key and key != "token"}
        return {key: without_times(each) for key, each in kept.items()}
    return [without_times(each) for each in value] if isinstance(value, list) else value


async def answers(http: httpx.AsyncClient, base: str, token: str, lag_s: float = 0) -> list[Any]:
    """What each step is answered; `lag_s` is how far the server's access control may be behind."""
    found = []
    for step in STEPS:
        headers = {"authorization": f"Bearer {token}"}
        if step.who:
            headers["impersonate-user"] = step.who
        if step.method == "PATCH":
            headers["content-type"] = "application/merge-patch+json"
        body = {} if step.body is None else {"json": step.body}
        path = step.path + ("&timeoutSeconds=1" if "watch=1" in step.path else "")
        found.append(told(await http.request(step.method, base + path, headers=headers, **body)))
        if not step.who and path.startswith(RBAC):
            await asyncio.sleep(lag_s)
    return found


@asynccontextmanager
async def referee(real: Reference) -> AsyncIterator[httpx.AsyncClient]:
    context = ssl.create_default_context(cafile=real.ca_file)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=30) as http:
        yield http


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with reference.running(tmp_path_factory.mktemp("reference")) as found:
        yield found


def test_every_answer_is_that_of_the_real_server(real: Reference) -> None:
    ours: list[Any] = []

    async def story(place: Place) -> None:
        ours.extend(await answers(place.http, f"{ISSUERS}/one", "one"))

    async def theirs() -> list[Any]:
        async with referee(real) as http:
            return await answers(http, real.url, real.token, lag_s=0.5)

    tell(story)
    expected = asyncio.run(theirs())
    different = [
        (step, mine, wanted)
        for step, mine, wanted in zip(STEPS, ours, expected, strict=True)
        if json.dumps(mine, sort_keys=True) != json.dumps(wanted, sort_keys=True)
    ]
    assert not different, "\n".join(
        f"{step}\n  ours   {mine}\n  theirs {wanted}" for step, mine, wanted in different
    )


def test_the_default_roles_are_those_of_the_real_server(real: Reference) -> None:
    async def theirs() -> dict[str, dict[tuple[str, str], Object]]:
        found = {}
        async with referee(real) as http:
            for resource in bootstrap.records("now"):
                plural = resource.partition(".")[0]
                answer = await http.get(
                    f"{real.url}{RBAC}/{plural}", headers={"authorization": f"Bearer {real.token}"}
                )
                found[resource] = {
                    (each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
                    for each in answer.json()["items"]
                }
        return found

    expected = asyncio.run(theirs())
    for resource, records in bootstrap.records("now").items():
        for where, record in records.items():
            # Its controller manager, which is not running, would fill these.
            if "aggregationRule" not in record.object and not where[1].startswith("kubevirt.io:"):
                assert substance(record.object) == substance(expected[resource][where]), (resource, where)


def substance(obj: Object) -> Any:
    metadata = obj["metadata"]
    rules = [rule for rule in obj.get("rules") or () if "walras.dev" not in rule.get("apiGroups", ())]
    lines = sorted(
        json.dumps({key: sorted(words) for key, words in each.items()}, sort_keys=True) for each in rules
    )
    return lines, obj.get("roleRef"), obj.get("subjects"), metadata["labels"], metadata["annotations"]
