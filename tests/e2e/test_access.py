"""Access control with kubectl as it is: roles, tokens, acting for others, asking what one may do."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.live import Live, eventually, pod, serving

from walras.kube.access.certificates import SIGNER
from walras.server.tls import client_authority

pytestmark = pytest.mark.e2e
Server = Any  # the fixture's ApiServer


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Its output, when it went well."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What it complained of, when it did."""
    assert done.returncode != 0, f"{done.args} was not refused:\n{done.stdout}"
    return done.stderr


def test_a_token_on_request_does_what_a_role_lets_it_and_no_more(apiserver: Server) -> None:
    kubectl = apiserver.kubectl
    ok(kubectl("create", "serviceaccount", "reader"))
    token = ok(kubectl("create", "token", "reader", "--duration=20m")).strip()
    whoami = ok(kubectl("--token", token, "auth", "whoami", "-o", "json"))
    assert json.loads(whoami)["status"]["userInfo"]["username"] == "system:serviceaccount:default:reader"
    said = refused(kubectl("--token", token, "get", "configmaps"))
    assert 'User "system:serviceaccount:default:reader" cannot list resource "configmaps"' in said
    ok(kubectl("create", "role", "maps", "--verb=get,list", "--resource=configmaps"))
    ok(kubectl("create", "rolebinding", "maps", "--role=maps", "--serviceaccount=default:reader"))
    ok(kubectl("--token", token, "get", "configmaps"))
    assert "cannot create" in refused(kubectl("--token", token, "create", "configmap", "x"))
    assert "cannot list" in refused(kubectl("--token", token, "get", "configmaps", "-n", "kube-system"))
    assert ok(kubectl("--token", token, "auth", "can-i", "list", "configmaps")).strip() == "yes"
    assert kubectl("--token", token, "auth", "can-i", "delete", "configmaps").stdout.strip() == "no"
    assert "configmaps" in ok(kubectl("--token", token, "auth", "can-i", "--list"))
    elsewhere = kubectl("--token", token, "get", "configmaps", cluster="two", token="two")
    assert "Forbidden" in refused(elsewhere)
    ok(kubectl("delete", "serviceaccount", "reader"))
    assert "must be logged in" in refused(kubectl("--token", token, "get", "configmaps"))


def test_acting_for_somebody_is_what_kubectl_as_does(apiserver: Server) -> None:
    kubectl = apiserver.kubectl
    assert 'User "alice" cannot list resource "secrets"' in refused(kubectl("get", "secrets", "--as=alice"))
    ok(kubectl("create", "clusterrolebinding", "dev-view", "--clusterrole=view", "--group=dev"))
    ok(kubectl("get", "configmaps", "--as=alice", "--as-group=dev"))
    assert "cannot list" in refused(kubectl("get", "secrets", "--as=alice", "--as-group=dev"))
    assert "Forbidden" in refused(
        kubectl("get", "pods", "--as=bob", "--as-group=system:masters", cluster="two", token="one")
    )


def test_default_roles_are_there_and_can_be_reconciled(apiserver: Server) -> None:
    kubectl = apiserver.kubectl
    names = ok(kubectl("get", "clusterroles", "-o", "name"))
    assert "clusterrole.rbac.authorization.k8s.io/cluster-admin" in names
    assert "Resources" in ok(kubectl("describe", "clusterrole", "view"))
    manifest = ok(kubectl("get", "clusterrole", "view", "-o", "yaml"))
    ok(kubectl("auth", "reconcile", "-f", "-", stdin=manifest))
    ok(kubectl("label", "clusterrole", "view", "mine=yes"))
    assert (
        json.loads(ok(kubectl("get", "clusterrole", "view", "-o", "json")))["metadata"]["labels"]["mine"]
        == "yes"
    )
    ok(kubectl("delete", "clusterrole", "view"))
    again = json.loads(ok(kubectl("get", "clusterrole", "view", "-o", "json")))
    assert "mine" not in again["metadata"]["labels"] and again["rules"]


# Client certificates


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """`walras up` with a listener for client certificates, and the agents "one" and "two"."""
    folder = tmp_path_factory.mktemp("certified")
    with serving(folder, "emulated:1", "--certificates", "127.0.0.1:0") as server:
        for name in ("one", "two"):
            server.agent(name)
        yield server


def certificate(live: Live, agent: str, user: str, *groups: str) -> tuple[Path, Path]:
    """A key and the certificate that the agent's cluster gives for it: files."""
    folder, config = live.data.parent, live.data.parent / f"{agent}.kubeconfig"
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    )
    pem = base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()
    name = f"{agent}-{user}"
    asked = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": pem, "signerName": SIGNER, "usages": ["client auth"]},
    }
    live.apply(config, asked)
    live.kubectl(config, "certificate", "approve", name)
    given = eventually(lambda: live.get(config, "csr", name)["status"].get("certificate"), "the certificate")
    files = folder / f"{name}.key", folder / f"{name}.crt"
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    files[0].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    files[1].write_bytes(base64.b64decode(given))
    return files


def with_certificate(live: Live, cluster: str, files: tuple[Path, Path], *words: str) -> str:
    """What kubectl says with nothing but a key and its certificate."""
    config = live.data.parent / "certified.kubeconfig"
    config.write_text("apiVersion: v1\nkind: Config\n")
    server = f"{live.ready['certificates']}/clusters/{cluster}"
    options = ("--server", server, "--certificate-authority", live.ready["ca_file"])
    keys = ("--client-key", str(files[0]), "--client-certificate", str(files[1]))
    return live.kubectl(config, *options, *keys, *words, check=False)


def test_a_certificate_is_its_user_in_its_cluster_and_nobody_elsewhere(certified: Live) -> None:
    config = certified.data.parent / "one.kubeconfig"
    files = certificate(certified, "one", "alice", "dev")
    who = with_certificate(certified, "one", files, "auth", "whoami", "-o", "json")
    info = json.loads(who)["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("alice", ["dev", "system:authenticated"])
    assert 'User "alice" cannot list resource "pods"' in with_certificate(
        certified, "one", files, "get", "pods"
    )
    binding = ("create", "clusterrolebinding", "dev-view", "--clusterrole=view", "--group=dev")
    certified.kubectl(config, *binding)
    assert "No resources found" in with_certificate(certified, "one", files, "get", "pods")
    for other in ("two", "fleet", "*", "none"):
        assert "Forbidden" in with_certificate(certified, other, files, "get", "pods")
    # A token beside it changes nothing.
    operator = yaml.safe_load(certified.operator.read_text())["users"][0]["user"]["token"]
    assert "Forbidden" in with_certificate(
        certified, "fleet", files, "--token", operator, "get", "secrets", "-A"
    )


def test_the_same_user_of_another_cluster_is_another_user(certified: Live) -> None:
    mine, theirs = (certificate(certified, agent, "bob", "dev") for agent in ("one", "two"))
    assert "do not have permission" in with_certificate(certified, "one", theirs, "auth", "whoami")
    assert "bob" in with_certificate(certified, "two", theirs, "auth", "whoami")
    assert "bob" in with_certificate(certified, "one", mine, "auth", "whoami")


def test_a_pod_finds_its_own_token_and_is_who_it_says(certified: Live) -> None:
    config = certified.data.parent / "one.kubeconfig"
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"cat {place}/namespace; echo; cat {place}/token; echo; head -1 {place}/ca.crt; sleep 600"
    certified.apply(config, pod("curious", script))

    def said() -> list[str]:
        return certified.kubectl(config, "logs", "curious", check=False).splitlines()

    namespace, token, authority = eventually(lambda: said() if len(said()) == 3 else None, "its words")
    assert (namespace, authority) == ("default", "-----BEGIN CERTIFICATE-----")
    who = json.loads(certified.kubectl(config, "--token", token, "auth", "whoami", "-o", "json"))
    info = who["status"]["userInfo"]
    assert info["username"] == "system:serviceaccount:default:default"
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["curious"]
    assert info["extra"]["authentication.kubernetes.io/node-name"] == ["base"]
    certified.kubectl(config, "delete", "pod", "curious", "--grace-period=0", "--force")
    eventually(
        lambda: (
            "must be logged in" in certified.kubectl(config, "--token", token, "get", "pods", check=False)
        ),
        "its token to be void",
    )


def tls(live: Live, files: tuple[Path, Path] | None, *protocols: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=live.ready["ca_file"])
    context.set_alpn_protocols(list(protocols) or ["http/1.1"])
    if files is not None:
        context.load_cert_chain(files[1], files[0])
    host, port = live.ready["certificates"].removeprefix("https://").split(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host)


def got(connection: ssl.SSLSocket, path: str) -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def turned_away(live: Live, files: tuple[Path, Path] | None) -> bool:
    """Whether TLS ends before there is any answer."""
    try:
        with tls(live, files) as connection:
            return not got(connection, "/clusters/one/api/v1/pods")
    except (ssl.SSLError, ConnectionError):
        return True


def test_nobody_gets_in_without_a_certificate_of_the_authority(certified: Live, tmp_path: Path) -> None:
    files = certificate(certified, "one", "carol")
    with tls(certified, files) as connection:
        assert b" 403 " in got(connection, "/clusters/one/api/v1/pods").split(b"\r\n")[0]
    assert turned_away(certified, None)
    # Signed by somebody else, in the same words.
    forged = client_authority(tmp_path, 1_700_000_000_000)
    key = serialization.load_pem_private_key(files[0].read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "carol")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    false = tmp_path / "false.crt"
    false.write_bytes(forged.sign(request, "one", "uid", 1_900_000_000_000))
    assert turned_away(certified, (files[0], false))
    # The certificate of the server itself is no client's.
    own = certified.data / "tls" / "server.key", certified.data / "tls" / "server.crt"
    assert turned_away(certified, own)


def test_what_stands_behind_the_listener_answers_nobody_who_comes_by_another_way(certified: Live) -> None:
    assert certified.process is not None
    certificate(certified, "one", "dave")
    ports = listening(certified.process.pid) - {
        int(certified.ready[key].rpartition(":")[2])
        for key in ("url", "certificates", "functions", "functions_http2")
    }
    assert ports
    for port in ports:
        for source in ("127.0.0.1", "127.64.0.0", "127.64.0.1"):
            with socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0)) as connection:
                connection.sendall(b"GET /clusters/one/api/v1/pods HTTP/1.1\r\nhost: x\r\n\r\n")
                said = connection.recv(4096).split(b"\r\n")[0]
            if b" 505 " in said:
                with httpx.Client(
                    transport=httpx.HTTPTransport(http1=False, http2=True, local_address=source)
                ) as http2:
                    said = (
                        b" %d " % http2.get(f"http://127.0.0.1:{port}/clusters/one/api/v1/pods").status_code
                    )
            assert b" 401 " in said
            with socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0)) as connection:
                connection.sendall(
                    b"GET /clusters/one/api/v1/namespaces/default/pods/x/exec HTTP/1.1\r\nhost: x\r\n"
                    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
                    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                assert b" 101 " not in connection.recv(4096).split(b"\r\n")[0]


def listening(pid: int) -> set[int]:
    """The TCP ports that a process listens on."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in sockets}
