"""An agent's admission webhook where it belongs: in one of its own pods, behind one of its Services."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from support.live import Live, eventually, serving
from support.webhook import certificate

pytestmark = pytest.mark.e2e
Object = dict[str, Any]

PROGRAM = """
import json, ssl
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = review["request"]
        answer = {"uid": asked["uid"], "allowed": "bad" not in (asked["object"].get("data") or {})}
        if not answer["allowed"]:
            answer["status"] = {"message": "no bad things"}
        body = json.dumps({**review, "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = HTTPServer(("127.0.0.1", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/certs/tls.crt", "/certs/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def webhook(client: Object, name: str = "a.example.com") -> Object:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["configmaps"],
    }
    hook = {
        "name": name,
        "clientConfig": client,
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
    }
    return {**kind, "webhooks": [hook]}


def served(live: Live, agent: Path) -> bytes:
    """Runs the webhook in a pod, and returns the authority of its certificate."""
    pem, key = certificate("hook.default.svc")
    files = {"tls.crt": base64.b64encode(pem).decode(), "tls.key": base64.b64encode(key).decode()}
    container = {
        "name": "main",
        "image": "python",
        "command": ["python3", "-c", PROGRAM],
        "volumeMounts": [{"name": "tls", "mountPath": "/certs"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}]}
    ports = [{"port": 443, "targetPort": 8443}]
    live.apply(
        agent,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "data": files},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hook", "labels": {"a": "b"}}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hook"},
            "spec": {"selector": {"a": "b"}, "ports": ports},
        },
    )
    live.kubectl(agent, "wait", "--for=condition=Ready", "--timeout=30s", "pod", "hook")
    return pem


def create(live: Live, agent: Path, name: str, word: str) -> str:
    return live.kubectl(agent, "create", "configmap", name, f"--from-literal={word}=1", check=False)


def test_a_webhook_in_ones_own_pod_decides(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        one, other = live.agent("one"), live.agent("other")
        pem = served(live, one)
        service = {"name": "hook", "namespace": "default"}
        client = {"service": service, "caBundle": base64.b64encode(pem).decode()}
        live.apply(one, webhook(client))

        denied = 'admission webhook "a.example.com" denied the request: no bad things'
        eventually(lambda: denied in create(live, one, "x", "bad"), "the webhook to listen")
        assert "created" in create(live, one, "y", "good")

        # The same names in another agent's cluster lead to nothing of this one's.
        live.apply(other, webhook(client))
        assert 'service "hook" not found' in create(live, other, "x", "good")


def test_a_url_leads_into_this_machine_only_where_the_operator_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        agent = live.agent("one")
        live.apply(agent, webhook({"url": live.ready["url"].replace("127.0.0.1", "localhost")}))
        assert "is this API server itself, which webhooks cannot be on" in create(live, agent, "x", "a")
        live.apply(agent, webhook({"url": "https://127.0.0.1:1/"}))
        assert "which is not a public address" in create(live, agent, "x", "a")
    opened = tmp_path / "opened"
    opened.mkdir()
    with serving(opened, "emulated:1", "--webhook-network", "127.0.0.0/8") as live:
        agent = live.agent("one")
        live.apply(agent, webhook({"url": "https://127.0.0.1:1/"}))
        assert "dial tcp 127.0.0.1:1: connect: connection refused" in create(live, agent, "x", "a")
        live.apply(agent, webhook({"url": live.ready["url"]}))
        assert "is this API server itself" in create(live, agent, "x", "a")
