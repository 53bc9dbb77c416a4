"""A webhook on loopback over TLS, with a certificate of its own authority."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import json
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Object = dict[str, Any]
# Takes a request of an AdmissionReview, gives its response without the uid; or raw bytes to answer with.
Answer = Callable[[Object], Any]


def certificate(*names: str) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM, signed by itself, for names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=24))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private


class Webhook:
    """Answers reviews with `answer`, and remembers what it was asked."""

    def __init__(self, answer: Answer, *names: str) -> None:
        self.answer = answer
        self.asked: list[Object] = []
        self.delay_s = 0.0
        self.head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        self._names = names or ("127.0.0.1", "localhost")
        self._server: asyncio.Server | None = None
        self.port = 0
        self.ca_bundle = ""

    async def __aenter__(self) -> Webhook:
        pem, key = certificate(*self._names)
        self.ca_bundle = base64.b64encode(pem).decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "c").write_bytes(pem)
            (Path(folder) / "k").write_bytes(key)
            context.load_cert_chain(Path(folder) / "c", Path(folder) / "k")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def client(self, path: str = "/admit") -> Object:
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.ca_bundle}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = [line.partition(":") for line in head.lower().splitlines()]
            length = next(int(value) for name, _, value in fields if name == "content-length")
            review = json.loads(await reader.readexactly(length))
            self.asked.append(review["request"])
            await asyncio.sleep(self.delay_s)
            body = self._body(review)
            writer.write(self.head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def _body(self, review: Object) -> bytes:
        said = self.answer(review["request"])
        if isinstance(said, bytes):
            return said
        response = {"uid": review["request"]["uid"], **said}
        return json.dumps(
            {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        ).encode()


def patch(*operations: Object) -> Object:
    """A response that allows, and changes the object."""
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(list(operations)).encode()).decode(),
    }


def refuse(message: str = "", **status: Any) -> Object:
    """A response that does not allow."""
    said = {**({"message": message} if message else {}), **status}
    return {"allowed": False, **({"status": said} if said else {})}


ALLOW: Object = {"allowed": True}
