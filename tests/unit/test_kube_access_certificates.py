"""Client certificates: who gets one, whom it is of, and in which cluster."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from support.access import Place, robot, rule
from support.access import tell as tell_http
from support.world import AGENT, World, tell

from walras.core.errors import BadRequest
from walras.kube.access import certificates
from walras.kube.access.certificates import SIGNER, Authority, holder, request_of
from walras.kube.access.signing import REQUESTS
from walras.server.tls import client_authority

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return client_authority(tmp_path_factory.mktemp("tls"), NOW_MS)


def csr(user: str = "alice", *groups: str, key: Key | None = None, san: str = "") -> bytes:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, user)] if user else []
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if san:
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(san)])
        builder = builder.add_extension(uri, critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def test_a_certificate_names_its_user_its_groups_and_its_cluster(authority: Authority) -> None:
    pem = authority.sign(request_of(csr("alice", "dev", "ops")), "one", "some-uid", NOW_MS)
    found = holder(der(pem))
    assert found is not None
    assert (found.user, found.groups, found.cluster, found.cluster_id) == (
        "alice", ("dev", "ops"), "one", "some-uid"
    )  # fmt: skip
    assert found.expires_ms == NOW_MS + 365 * DAY_MS


def test_a_request_cannot_say_of_which_cluster_it_will_be(authority: Authority) -> None:
    asked = request_of(csr("alice", san="walras://clusters/two/other-uid"))
    found = holder(der(authority.sign(asked, "one", "uid", NOW_MS)))
    assert found is not None and (found.cluster, found.cluster_id) == ("one", "uid")


@pytest.mark.parametrize("cluster", ["a/b", "a?b", "a#b", "..", "fleet/x", "a%2Fb"])
def test_no_name_of_a_cluster_reads_as_another(authority: Authority, cluster: str) -> None:
    found = holder(der(authority.sign(request_of(csr()), cluster, "uid", NOW_MS)))
    assert found is not None and found.cluster == cluster


def test_what_is_not_of_the_form_is_nobodys(authority: Authority, tmp_path: Path) -> None:
    assert holder(b"") is None and holder(b"\x30\x00") is None
    assert holder(der(authority.certificate)) is None
    assert holder(der(authority.sign(request_of(csr("")), "one", "uid", NOW_MS))) is None
    twice = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("alice", "root")])
    request = x509.CertificateSigningRequestBuilder().subject_name(twice)
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    assert holder(der(authority.sign(signed, "one", "uid", NOW_MS))) is None


@pytest.mark.parametrize(
    "pem",
    [
        b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        b"x" * (certificates.REQUEST_BYTES_MAX + 1),
        csr(key=rsa.generate_private_key(65537, 1024)),
    ],
    ids=["empty", "nonsense", "broken", "huge", "weak"],
)  # fmt: skip
def test_a_request_that_is_none_is_refused(pem: bytes) -> None:
    with pytest.raises(BadRequest):
        request_of(pem)


def test_a_request_that_its_key_has_not_signed_is_refused() -> None:
    good = x509.load_pem_x509_csr(csr("alice")).public_bytes(serialization.Encoding.DER)
    forged = good.replace(b"alice", b"admin")
    armoured = base64.encodebytes(forged)
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + armoured + b"-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(BadRequest, match="not signed by its own key"):
        request_of(pem)


def test_who_holds_one_is_nobody_once_it_is_over_or_its_cluster_is_another(authority: Authority) -> None:
    async def story(place: Place) -> None:
        identity = certificates.cluster_id(place.api, "one")
        made = authority.sign(request_of(csr("alice", "dev")), "one", identity, place.clock.now_ms())
        found = holder(der(made))
        assert found is not None
        who = found.identity(place.api)
        assert who is not None
        assert (who.user, who.groups, who.cluster) == ("alice", ("dev", "system:authenticated"), "one")
        assert dataclasses.replace(found, cluster="two").identity(place.api) is None
        assert dataclasses.replace(found, cluster="fleet").identity(place.api) is None
        assert dataclasses.replace(found, cluster="").identity(place.api) is None
        assert dataclasses.replace(found, cluster="none", cluster_id="").identity(place.api) is None
        assert dataclasses.replace(found, groups=("system:masters",)).identity(place.api) is None
        await place.api.delete_cluster("one")
        assert found.identity(place.api) is None
        await place.api.create_cluster("one")
        await place.api.create("one", "namespaces", {"metadata": {"name": "kube-system"}})
        assert found.identity(place.api) is None
        place.clock.advance(366 * DAY_MS)
        assert found.identity(place.api) is None

    tell_http(story)


def body(pem: bytes, name: str = "it", **spec: Any) -> dict[str, Any]:
    wanted = {"signerName": SIGNER, "usages": ["client auth"], "request": base64.b64encode(pem).decode()}
    return {"metadata": {"name": name}, "spec": {**wanted, **spec}}


def approved(found: dict[str, Any], kind: str = "Approved") -> dict[str, Any]:
    return {**found, "status": {"conditions": [{"type": kind, "status": "True", "reason": "x"}]}}


async def requester(place: Place) -> str:
    """An account that may do everything with requests but approve or sign them."""
    await place.account()
    requests = "certificatesigningrequests"
    kinds = f"{requests} {requests}/approval {requests}/status"
    await place.role("requester", rule("*", kinds, "certificates.k8s.io"))
    await place.bind("requester", robot())
    return await place.token()


def test_a_request_says_who_made_it_whatever_its_maker_says() -> None:
    async def story(place: Place) -> None:
        token = await requester(place)
        lies: dict[str, Any] = {
            "username": "root",
            "groups": ["system:masters"],
            "uid": "1",
            "extra": {"a": ["b"]},
        }
        found = await place.must(token, "POST", PATH, approved(body(csr(), **lies)))
        assert found["spec"]["username"] == "system:serviceaccount:default:robot"
        assert "system:masters" not in found["spec"]["groups"] and found["spec"]["uid"] != "1"
        assert not (found.get("status") or {}).get("conditions")
        changed = {**found, "spec": {**found["spec"], "username": "root", "signerName": "else/where"}}
        again = await place.must(token, "PUT", f"{PATH}/it", changed)
        assert again["spec"] == found["spec"]

    tell_http(story)


def test_nobody_approves_or_signs_without_the_verb_on_the_signer(authority: Authority) -> None:
    async def story(place: Place) -> None:
        token = await requester(place)
        found = await place.must(token, "POST", PATH, body(csr()))
        answer = await place.ask(token, "PUT", f"{PATH}/it/approval", approved(found))
        assert answer.status_code == 403 and answer.json()["message"] == (
            'certificatesigningrequests.certificates.k8s.io "it" is forbidden: user not permitted to approve '
            f'requests with signerName "{SIGNER}"'
        )
        forged = base64.b64encode(authority.certificate).decode()
        status = {**found, "status": {"certificate": forged}}
        answer = await place.ask(token, "PUT", f"{PATH}/it/status", status)
        assert answer.status_code == 403 and "not permitted to sign" in answer.json()["message"]
        # By the way of the status, of a patch, or with a condition that is there already.
        told = await place.must(token, "PUT", f"{PATH}/it/status", approved(found))
        assert not (told.get("status") or {}).get("conditions")
        patch = {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}
        assert (await place.ask(token, "PATCH", f"{PATH}/it/approval", patch)).status_code == 403
        plain = await place.must(token, "PATCH", f"{PATH}/it", patch)
        assert not (plain.get("status") or {}).get("conditions")
        await place.role("approver", rule("approve", "signers", "certificates.k8s.io", "kubernetes.io/*"))
        await place.bind("approver", robot())
        done = await place.must(token, "PUT", f"{PATH}/it/approval", approved(found))
        assert done["status"]["conditions"][0]["type"] == "Approved"
        denied = approved(done, "Denied")
        assert (await place.ask(token, "PUT", f"{PATH}/it/approval", denied)).status_code == 422

    tell_http(story)


@pytest.mark.parametrize(
    ("pem", "spec", "code"),
    [
        (csr("root", "system:masters"), {}, 403),
        (csr(), {"usages": []}, 422),
        (csr(), {"signerName": ""}, 422),
        (csr(), {"expirationSeconds": 599}, 422),
        (b"nonsense", {}, 422),
    ],
    ids=["masters", "usages", "signer", "brief", "nonsense"],
)
def test_a_request_for_what_nobody_gets_is_not_made(pem: bytes, spec: dict[str, Any], code: int) -> None:
    async def story(place: Place) -> None:
        answer = await place.ask("one", "POST", PATH, body(pem, **spec))
        assert answer.status_code == code, answer.text

    tell_http(story)


async def ask(
    world: World, pem: bytes, name: str = "it", kind: str = "Approved", **spec: Any
) -> dict[str, Any]:
    made = body(pem, name, **spec)
    await world.create(REQUESTS, made)
    decided = [{"type": kind, "status": "True"}]
    await world.api.edit(AGENT, REQUESTS, "", name, lambda it: it.update(status={"conditions": decided}))
    await world.settle()
    return world.api.get(AGENT, REQUESTS, "", name)


def test_what_was_approved_is_signed_for_the_cluster_that_it_was_approved_in(authority: Authority) -> None:
    async def story(world: World) -> None:
        found = await ask(world, csr("alice", "dev"), expirationSeconds=3600)
        who = holder(der(base64.b64decode(found["status"]["certificate"])))
        assert who is not None and (who.user, who.cluster) == ("alice", AGENT)
        assert who.expires_ms == world.clock.now_ms() + 3_600_000
        identity = who.identity(world.api)
        assert identity is not None and identity.cluster == AGENT
        assert dataclasses.replace(who, cluster="zoo").identity(world.api) is None

    tell(story, agents=(AGENT, "zoo"), authority=authority)


@pytest.mark.parametrize(
    ("pem", "kind", "spec", "why"),
    [
        (csr(), "Denied", {}, ""),
        (csr(), "Approved", {"signerName": "example.com/mine"}, ""),
        (csr(), "Approved", {"usages": ["server auth"]}, "invalid usage"),
        (csr(), "Approved", {"usages": ["digital signature"]}, "missing required usage"),
        (csr("root", "system:masters"), "Approved", {}, "system:masters"),
        (b"nonsense", "Approved", {}, "PEM block"),
    ],
    ids=["denied", "another", "server", "none", "masters", "nonsense"],
)
def test_what_was_not_approved_or_is_not_given_is_not_signed(
    authority: Authority, pem: bytes, kind: str, spec: dict[str, Any], why: str
) -> None:
    async def story(world: World) -> None:
        found = await ask(world, pem, kind=kind, **spec)
        assert "certificate" not in found["status"]
        failed = [each for each in found["status"]["conditions"] if each["type"] == "Failed"]
        assert bool(failed) == bool(why) and (not why or why in failed[0]["message"])

    tell(story, authority=authority)
