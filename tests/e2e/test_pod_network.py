"""Pods in a network, end to end: a Deployment behind a Service, names, and the API server from inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.live import BIN, Live, eventually, phase, pod

pytestmark = pytest.mark.e2e
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: host
        command: [python, -c]
        args:
        - |
          import http.server, os, time
          class Answer(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  self.send_response(200)
                  self.end_headers()
                  self.wfile.write(os.environ["HOSTNAME"].encode())
          http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"""
FETCH = "import urllib.request as r; print(r.urlopen('{url}', timeout=10).read().decode())"
INSIDE = """
from kubernetes import client, config
config.load_incluster_config()
api = client.CoreV1Api()
print([each.metadata.name for each in api.list_namespaced_pod("default", label_selector="app=web").items])
print(client.VersionApi().get_code().minor)
import http.client, ssl
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
context = ssl.create_default_context(cafile=account + "ca.crt")
headers = {"Authorization": "Bearer " + open(account + "token").read()}
for path in ("/clusters/rival/api/v1/pods", "/../rival/api/v1/pods", "//clusters/rival/api", "/clusters"):
    connection = http.client.HTTPSConnection("kubernetes.default.svc", context=context)
    connection.request("GET", path, headers=headers)
    print(connection.getresponse().status)
"""


def script(code: str) -> str:
    return f"exec {sys.executable} - <<'END'\n{code}\nEND"


def said(live: Live, config: Path, name: str, code: str, **spec: Any) -> str:
    manifest = pod(name, script(code))
    manifest["spec"].update(spec)
    live.apply(config, manifest)
    eventually(lambda: phase(live, config, name) in ("Succeeded", "Failed"), f"{name} to end")
    return live.kubectl(config, "logs", name)


def test_a_deployment_is_reached_by_its_service_and_the_api_server_by_its_name(live: Live) -> None:
    acme, rival = live.agent("acme"), live.agent("rival")
    live.kubectl(acme, "apply", "-f", "-", stdin=WEB)
    live.kubectl(acme, "rollout", "status", "deployment/web", "--timeout=30s")
    pods = {each["metadata"]["name"] for each in live.get(acme, "pods", "-l", "app=web")["items"]}

    def ready() -> bool:
        (piece,) = live.get(acme, "endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        return len([each for each in piece["endpoints"] or () if each["conditions"]["ready"]]) == 2

    eventually(ready, "both pods to be ready")
    time.sleep(0.3)
    lines = said(live, acme, "client", ";\n".join([FETCH.format(url="http://web.default.svc/")] * 12)).split()
    assert set(lines) == pods
    theirs = said(live, rival, "client", FETCH.format(url="http://web.default.svc.cluster.local/"))
    assert "Name or service not known" in theirs or "name resolution" in theirs
    live.kubectl(
        acme, "create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=default:default"
    )
    found = said(live, acme, "inside", INSIDE).splitlines()
    assert set(eval(found[0])) == pods
    assert found[1] == "36" and "ESCAPED" not in found
    assert len(found) == 6 and all(int(each) in (400, 403, 404) for each in found[2:])
    forwarded(live, acme, pods)
    raw = "/api/v1/namespaces/default/services/web:80/proxy/"
    assert live.kubectl(acme, "get", "--raw", raw).strip() in pods


def forwarded(live: Live, config: Path, pods: set[str]) -> None:
    command = [str(BIN / "kubectl"), "port-forward", "service/web", ":80"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "KUBECONFIG": str(config)}
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split(":")[1].split()[0]
        code = FETCH.format(url=f"http://127.0.0.1:{port}/")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() in pods
        process.terminate()


def test_a_server_that_was_killed_gives_its_pods_networks_anew(live: Live) -> None:
    acme = live.agent("acme")
    live.kubectl(acme, "apply", "-f", "-", stdin=WEB)
    live.kubectl(acme, "rollout", "status", "deployment/web", "--timeout=30s")
    live.stop(9)
    live.start("--listen", "127.0.0.1:" + live.ready["url"].rpartition(":")[2])

    def again() -> bool:
        pods = live.get(acme, "pods", "-l", "app=web")["items"]
        return all(
            each["status"]["containerStatuses"][0]["restartCount"] == 1
            and each["status"]["containerStatuses"][0]["ready"]
            for each in pods
        )

    eventually(again, "both pods to be ready once more")
    time.sleep(0.5)
    lines = said(live, acme, "client", ";\n".join([FETCH.format(url="http://web/")] * 12)).split()
    assert set(lines) == {
        each["metadata"]["name"] for each in live.get(acme, "pods", "-l", "app=web")["items"]
    }
