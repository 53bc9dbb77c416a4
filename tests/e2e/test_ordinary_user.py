"""The main path by a user without rights: what works works, and `walras doctor` says what is missing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live import BIN, DEADLINE_S, Live, eventually, phase, pod, processes, run

import walras

pytestmark = pytest.mark.e2e

NOBODY = 65_534


def as_ordinary_user(aside: Path, *, without: str = "") -> tuple[str, ...]:
    """What to put before a command so that nobody runs it, who can read Python and this package.

    `without`: a program that this machine then does not have.

    Where they are below a directory that is for root alone, that directory is another one in a mount
    namespace of the command's own.
    """
    wanted = {
        Path(each).resolve() for each in (sys.prefix, sys.base_prefix, Path(walras.__file__).parents[1])
    }
    closed = {path: closing for path in wanted if (closing := _closing(path)) is not None}
    script = ["set -e"]
    for number, path in enumerate(closed):
        script += [f"mkdir -p {aside}/{number}", f"mount --bind {shlex.quote(str(path))} {aside}/{number}"]
    script += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(each))}" for each in set(closed.values())]
    for number, path in enumerate(closed):
        place = shlex.quote(str(path))
        script += [f"mkdir -p {place}", f"mount --bind {aside}/{number} {place}"]
    if without and (found := shutil.which(without)):
        script.append(f"mount --bind /dev/null {shlex.quote(found)}")
    ids = f"--reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set=-all --inh-caps=-all"
    script.append(f'exec setpriv {ids} env HOME={aside} "$@"')
    return ("unshare", "--mount", "--propagation", "private", "bash", "-c", "\n".join(script), "nobody")


def _closing(path: Path) -> Path | None:
    """The first directory above that others may not enter."""
    return next((each for each in reversed((path, *path.parents)) if not each.stat().st_mode & 1), None)


@pytest.fixture(params=["", "bwrap"], ids=["with all there is", "without bubblewrap"])
def ordinary(request: pytest.FixtureRequest) -> Iterator[Live]:
    # Not pytest's own folder, which is for root alone.
    folder = Path(tempfile.mkdtemp(prefix="walras-user-"))
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        prefix = as_ordinary_user(folder, without=request.param)
        tried = subprocess.run(
            [*prefix, BIN / "walras", "version"], capture_output=True, text=True, check=False
        )
        if tried.returncode:
            shutil.rmtree(folder)
            pytest.skip(f"no other user can run Walras here: {tried.stderr}")
    live = Live(folder / "data", prefix=prefix)
    try:
        live.start()
        yield live
    finally:
        if live.process is not None:
            live.stop()
        log = live.log()
        shutil.rmtree(folder)
    assert "Traceback" not in log, log


TRAIN = """
[ -e /data/step ] && echo "resuming from $(cat /data/step)"
trap 'echo 42 > /data/step; exit 0' TERM
while :; do sleep 0.1; done
"""


def test_an_ordinary_user_can_do_the_main_job(ordinary: Live) -> None:
    live = ordinary
    live.kubectl(live.operator, "patch", "pool", "default", "--type", "merge", "-p",
                 '{"spec": {"minimumQuantum": "0s"}}')  # fmt: skip
    trainer, searcher = live.agent("trainer"), live.agent("searcher")
    live.apply(trainer, pod("hello", "echo hello; exit 3"))
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    train = pod("train", TRAIN, milli=1000, price="0.50", job_class="batch")
    train["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    train["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    live.apply(trainer, claim, train)
    eventually(lambda: phase(live, trainer, "hello") == "Failed", "the pod on the base node to end")
    assert live.kubectl(trainer, "logs", "hello").strip() == "hello"
    eventually(lambda: phase(live, trainer, "train") == "Running", "training to run")
    query = pod("query", "echo $WALRAS_MILLIGPU; : mark-query", milli=1000, price="5", job_class="latency")
    live.apply(searcher, query)
    eventually(lambda: phase(live, searcher, "query") == "Succeeded", "inference to displace it and end")
    assert live.kubectl(searcher, "logs", "query").strip() == "1000"
    # Displaced, it had the time to write a checkpoint; it goes on from there.
    live.apply(trainer, train)
    eventually(
        lambda: "resuming from 42" in live.kubectl(trainer, "logs", "train", check=False), "it to resume"
    )
    assert json.loads(live.walras("ledger", "-o", "json"))["balanced"] is True
    live.walras("agent", "delete", "trainer")
    assert not processes("/data/step")


def test_doctor_tells_an_ordinary_user_what_is_missing_and_what_to_do(ordinary: Live) -> None:
    told = run(*ordinary.prefix, BIN / "walras", "doctor", "-o", "json", "--data", ordinary.data)
    checks = {check["name"]: check for check in json.loads(told)["checks"]}
    assert checks["server"]["ok"] is True
    if checks["sandbox"]["ok"]:
        assert "run the server as root" in checks["user separation"]["advice"]
    else:
        assert "its own data and tokens too" in checks["sandbox"]["detail"]
        assert "run only programs that you trust" in checks["sandbox"]["advice"]
    assert all(check["advice"] for check in checks.values() if not check["ok"])


def test_a_server_that_cannot_shut_pods_in_says_so_at_its_start(ordinary: Live) -> None:
    exposed = ordinary.prefix and "/dev/null" in ordinary.prefix[-2]
    ordinary.stop()
    command = [*ordinary.prefix, BIN / "walras", "up", "--data", ordinary.data, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said and (line := server.stdout.readline()):
            said += line
        server.send_signal(signal.SIGINT)
        assert server.wait(DEADLINE_S) == 0
    assert ("run only programs that you trust" in said) == bool(exposed)


SERVE = "from http.server import *; HTTPServer(('', 8765), SimpleHTTPRequestHandler).serve_forever()"
FETCH = "import urllib.request as r; print(r.urlopen('http://web/', timeout=10).status)"


def test_an_ordinary_users_pods_are_probed_entered_and_reached_by_their_service(ordinary: Live) -> None:
    live, acme = ordinary, ordinary.agent("acme")
    web = pod("web", f'cd /usr && exec {sys.executable} -c "{SERVE}"')
    web["metadata"]["labels"] = {"app": "web"}
    probe = {"exec": {"command": ["sh", "-c", "test $HOSTNAME = web"]}, "periodSeconds": 1}
    web["spec"]["containers"][0]["readinessProbe"] = probe
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8765}]},
    }
    live.apply(acme, web, service)
    live.kubectl(acme, "wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
    assert live.kubectl(acme, "exec", "web", "--", "echo", "entered").strip() == "entered"
    told = run(*live.prefix, BIN / "walras", "doctor", "-o", "json", "--data", live.data)
    if not {check["name"]: check for check in json.loads(told)["checks"]}["pod network"]["ok"]:
        return
    ready = ("endpointslices", "-l", "kubernetes.io/service-name=web")
    eventually(lambda: live.get(acme, *ready)["items"][0]["endpoints"], "the endpoint")
    time.sleep(0.3)
    live.apply(acme, pod("client", f'{sys.executable} -c "{FETCH}"'))
    eventually(lambda: phase(live, acme, "client") in ("Succeeded", "Failed"), "the client to end")
    assert live.kubectl(acme, "logs", "client").strip() == "200"
