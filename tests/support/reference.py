"""The real Kubernetes as a referee: etcd and kube-apiserver on loopback, built by scripts/reference."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

READY_S: Final = 120.0


def folder() -> Path:
    """Where scripts/reference puts what it builds."""
    default = Path.home() / ".cache" / "walras" / "reference"
    return Path(os.environ.get("WALRAS_REFERENCE") or default)


def missing(*names: str) -> str:
    """Why these programs cannot be run; "" where all of them are there."""
    absent = [name for name in names if not os.access(folder() / name, os.X_OK)]
    return f"no {' '.join(absent)} in {folder()}; scripts/reference builds it" if absent else ""


@dataclass
class Reference:
    """A kube-apiserver that accepts requests, and an admin's credentials of it."""

    work: Path
    url: str
    ca_file: Path
    token: str
    _stack: ExitStack = field(repr=False)

    @property
    def kubeconfig(self) -> Path:
        return self.work / "admin.kubeconfig"

    def run(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Another part of the control plane, until the end."""
        return self._stack.enter_context(program(self.work, name, words))

    def manage(self) -> None:
        """Starts the controller manager and the scheduler."""
        as_admin = (
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
        )
        self.run(
            "kube-controller-manager", *as_admin, f"--secure-port={free_port()}",
            f"--service-account-private-key-file={self.work / 'sa.key'}",
            f"--root-ca-file={self.ca_file}", "--use-service-account-credentials=true",
        )  # fmt: skip
        self.run("kube-scheduler", *as_admin, f"--secure-port={free_port()}")


@contextmanager
def running(work: Path) -> Iterator[Reference]:
    """A cluster in the folder `work`, without controllers: see `Reference.manage`."""
    with ExitStack() as stack:
        store, peer, port = free_port(), free_port(), free_port()
        stack.enter_context(
            program(
                work, "etcd", (
                    f"--data-dir={work / 'etcd'}", f"--listen-client-urls=http://127.0.0.1:{store}",
                    f"--advertise-client-urls=http://127.0.0.1:{store}",
                    f"--listen-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                    f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync",
                ),
            )
        )  # fmt: skip
        token = secrets.token_urlsafe(24)
        _private(work / "tokens.csv", f'{token},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        _private(work / "sa.key", key.decode())
        server = stack.enter_context(
            program(
                work, "kube-apiserver", (
                    f"--etcd-servers=http://127.0.0.1:{store}", f"--secure-port={port}",
                    "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                    f"--service-account-key-file={work / 'sa.key'}",
                    f"--service-account-signing-key-file={work / 'sa.key'}",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    "--service-cluster-ip-range=10.0.0.0/16", f"--cert-dir={work / 'certs'}",
                    f"--token-auth-file={work / 'tokens.csv'}", "--authorization-mode=RBAC",
                    "--allow-privileged=true", "--max-requests-inflight=3000",
                    "--max-mutating-requests-inflight=1000",
                ),
            )
        )  # fmt: skip
        ca_file = work / "certs" / "apiserver.crt"
        reference = Reference(work, f"https://127.0.0.1:{port}", ca_file, token, stack)
        _await(reference, server)
        _private(reference.kubeconfig, _kubeconfig(reference))
        yield reference


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def program(work: Path, name: str, words: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    work.mkdir(parents=True, exist_ok=True)
    with (work / f"{name}.log").open("ab") as log:
        process = subprocess.Popen([folder() / name, *words], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(reference: Reference, server: subprocess.Popen[bytes]) -> None:
    """Returns when the server is ready; raises RuntimeError where it ended instead."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if server.poll() is not None:
            log = (reference.work / "kube-apiserver.log").read_text()[-2000:]
            raise RuntimeError(f"kube-apiserver ended with code {server.returncode}: {log}")
        try:
            context = ssl.create_default_context(cafile=reference.ca_file)
            headers = {"authorization": f"Bearer {reference.token}"}
            answer = httpx.get(f"{reference.url}/readyz", headers=headers, verify=context, trust_env=False)
            if answer.status_code == 200:
                return
        except (httpx.TransportError, OSError):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"kube-apiserver was not ready within {READY_S:.0f} s")


def _private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _kubeconfig(reference: Reference) -> str:
    cluster = {"server": reference.url, "certificate-authority": str(reference.ca_file)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "reference", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": reference.token}}],
            "contexts": [{"name": "reference", "context": {"cluster": "reference", "user": "admin"}}],
            "current-context": "reference",
        }
    )
