"""A real API server over TLS for real clients, without controllers; a test stands in for the runtime."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvloop
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.closed import Closed
from support.live import Live, serving

from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.serve.app import Application
from walras.kube.serve.server import Running, serve
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Verbs
from walras.server.system import SystemClock, SystemIds

KUBECTL = Path(sys.executable).parent / "kubectl"
TIMEOUT_S = 60
T = TypeVar("T")


class Tokens:
    """Who holds which token: the operator and the agents "one" and "two"."""

    def identify(self, token: str) -> Identity | None:
        return {
            "operator": Identity("walras:operator", ("system:masters",), ""),
            "one": Identity("agent:one", ("system:masters", "system:authenticated"), "one"),
            "two": Identity("agent:two", ("system:masters", "system:authenticated"), "two"),
        }.get(token)


@dataclass
class RecordingPods(Closed):
    """Stands in for a runtime: says what it was asked, serves what the test wrote down."""

    lines: list[bytes] = field(default_factory=lambda: [b"hello\n", b"world\n"])
    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def logs(self, cluster: str, pod: Any, container: str, **options: Any) -> AsyncIterator[bytes]:
        self.asked.append(
            {"cluster": cluster, "pod": pod["metadata"]["name"], "container": container, **options}
        )
        for line in self.lines:
            yield line
        if options["follow"]:
            await asyncio.Event().wait()

    async def dial(
        self, cluster: str, pod: Any, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.asked.append({"cluster": cluster, "pod": pod["metadata"]["name"], "port": port})
        return await asyncio.open_connection("127.0.0.1", self.port)


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate authority of one's own and a server certificate of it: CA, chain and key files."""
    now = datetime.now(UTC)

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("test ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        builder("test ca", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(ca_id, critical=False)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True
        )
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id)
    leaf = builder("localhost", key).add_extension(names, False).add_extension(authority, False)
    files = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    files[0].write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[2].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


class ApiServer:
    """The server, in a thread with its own event loop, and the clients' ways to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self._cert, self._key = certificates(folder)
        self.pods = RecordingPods()
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            uvloop.run(self._main())
        except BaseException as error:
            self._failed = error
            self._started.set()

    async def _main(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        store = SqliteStore(self.folder / "walras.db")
        try:
            self.api = API(store, SystemClock(), SystemIds())
            for cluster in ("fleet", "one", "two"):
                await self.api.create_cluster(cluster)
                for name in ("default", "kube-system"):
                    await self.api.create(cluster, "namespaces", {"metadata": {"name": name}})
            self.app = Application(Verbs(self.api), Tokens(), SystemClock(), pods=self.pods)
            self.running: Running = await serve(self.app, "127.0.0.1", 0, self._cert, self._key)
            self._started.set()
            await self._stop.wait()
            await self.running.close()
        finally:
            store.close()

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of a coroutine in the server's own loop, as its trusted parts would run it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT_S)

    kubectl_path = KUBECTL

    @property
    def url(self) -> str:
        return self.running.url

    def kubeconfig(self, cluster: str = "one", token: str = "one") -> Path:
        path = self.folder / f"{cluster.replace('*', 'all')}-{token}.kubeconfig"
        server = {"server": f"{self.url}/clusters/{cluster}", "certificate-authority": str(self.ca)}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "it",
                    "clusters": [{"name": "it", "cluster": server}],
                    "users": [{"name": "it", "user": {"token": token}}],
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                }
            )
        )
        path.chmod(0o600)
        return path

    def client(self, token: str = "one") -> httpx.Client:
        trust = ssl.create_default_context(cafile=str(self.ca))
        return httpx.Client(
            base_url=self.url,
            verify=trust,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    def kubectl(
        self, *arguments: str, cluster: str = "one", token: str = "one", stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """What the unmodified kubectl did."""
        return subprocess.run(
            [str(KUBECTL), "--kubeconfig", str(self.kubeconfig(cluster, token)), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={"HOME": str(self.folder), "PATH": os.environ["PATH"], **environment},
            check=False,
        )


@pytest.fixture(scope="module")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("apiserver"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """The whole product: `walras up` with one emulated device."""
    with serving(tmp_path) as server:
        yield server
