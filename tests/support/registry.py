"""A registry of images on loopback: as much of the OCI distribution protocol as a pull takes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Registry:
    """`password`, where there is one, is asked of a user called "me". `asked`: the paths of all requests."""

    password: str = ""
    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, file_system: bytes, config: Mapping[str, Any]) -> str:
        """Puts an image of one layer there under a name such as "team/app:1": its digest."""
        layer = gzip.compress(file_system, mtime=0)
        told = {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(file_system)]},
        }
        text = json.dumps(told).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blob("application/vnd.oci.image.config.v1+json", text),
            "layers": [self._blob("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
        }
        path, _, tag = name.rpartition(":")
        found = json.dumps(manifest).encode()
        for reference in (tag, digest(found)):
            self.manifests[f"/v2/{path}/manifests/{reference}"] = found
        return digest(found)

    def _blob(self, kind: str, data: bytes) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and body of a GET."""
        self.asked.append(path)
        key = base64.b64encode(f"me:{self.password}".encode()).decode()
        if self.password and authorization != f"Basic {key}":
            return 401, {"WWW-Authenticate": 'Basic realm="here"'}, b"{}"
        if path == "/v2/":
            return 200, {}, b"{}"
        if (manifest := self.manifests.get(path)) is not None:
            return 200, {"Content-Type": _MANIFEST, "Docker-Content-Digest": digest(manifest)}, manifest
        if "/blobs/" in path and (blob := self.blobs.get(path.rpartition("/")[2])) is not None:
            return 200, {"Content-Type": "application/octet-stream"}, blob
        said = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return 404, {"Content-Type": "application/json"}, json.dumps(said).encode()


@contextmanager
def serving(password: str = "") -> Iterator[Registry]:
    """A registry that answers at `127.0.0.1:{port}`, without TLS."""
    registry = Registry(password)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = registry.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.port = server.server_address[1]
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
