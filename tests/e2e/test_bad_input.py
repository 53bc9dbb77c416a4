"""Everything done wrong, by command line, kubectl and HTTP: told in words, and nothing is lost by it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.live import BIN, DEADLINE_S, Live, eventually, phase, pod, processes, run, serving

pytestmark = pytest.mark.e2e

WALRAS = "apis/walras.dev/v1alpha1"
PODS = "api/v1/namespaces/default/pods"
BIDS = f"{WALRAS}/namespaces/default/bids"
LEASES = f"{WALRAS}/namespaces/default/gpuleases"
CRDS = "apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server for all that leaves no traces in another's agents."""
    with serving(tmp_path_factory.mktemp("bad-input")) as live:
        # Displacement need not wait for the usual five seconds.
        live.kubectl(live.operator, "patch", "pool", "default", "--type", "merge", "-p",
                     '{"spec": {"minimumQuantum": "0s"}}')  # fmt: skip
        yield live


@pytest.fixture(scope="module")
def acme(server: Live) -> Path:
    return server.agent("acme")


@pytest.fixture(scope="module")
def http(server: Live, acme: Path) -> Iterator[httpx.Client]:
    with server.client(acme) as client:
        client.base_url = client.base_url.join("/clusters/acme/")
        yield client


@pytest.fixture(scope="module")
def fleet(server: Live) -> Iterator[httpx.Client]:
    with server.client(server.operator) as client:
        client.base_url = client.base_url.join("/clusters/fleet/")
        yield client


def refused(response: httpx.Response, code: int = 422) -> str:
    """The message of a Status that refuses."""
    status = response.json()
    assert (response.status_code, status["kind"], status["status"]) == (code, "Status", "Failure"), status
    assert "Traceback" not in status["message"]
    return str(status["message"])


def gpu_pod(limits: dict[str, Any], name: str = "wrong", **annotations: str) -> dict[str, Any]:
    made = pod(name, "sleep 60")
    made["spec"]["containers"][0]["resources"] = {"limits": limits}
    made["metadata"]["annotations"] = {
        f"walras.dev/{key.replace('_', '-')}": value for key, value in annotations.items()
    }
    return made


# The command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--gpus", "nonsense"), "such as emulated:4:A100"),
        (("up", "--gpus", "emulated:0"), "between 1 and 64"),
        (("up", "--listen", "nonsense"), "is not HOST:PORT such as"),
        (("up", "--listen", "127.0.0.1:99999"), "is not HOST:PORT such as"),
        (("up", "--data", "/dev/null/data"), "the data folder /dev/null/data cannot be used"),
        (
            ("up", "--listen", "127.0.0.1:30999", "--functions-http2-port", "30999"),
            "--listen and --functions-http2-port are port 30999",
        ),
        (("bids", "--kubeconfig", "/no/such/file"), "/no/such/file"),
        (("bids", "--data", "/no/such/data"), "start one with `walras up`"),
        (("agent", "create", "x"), "--income"),
        (("agent", "create", "x", "--income", "-5/h"), "must be zero or more"),
        (("agent", "create", "x", "--income", "5/h", "--balance", "-1"), "must be zero or more"),
        (("agent", "show", "nobody"), 'there is no agent "nobody"'),
    ],
)
def test_a_command_that_makes_no_sense_says_on_one_line_what_would(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = subprocess.run(
        [str(BIN / "walras"), *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "WALRAS_DATA": str(tmp_path / "data"), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr or "no server has run" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_a_server_that_is_down_is_told_as_that(tmp_path: Path) -> None:
    live = Live(tmp_path / "data")
    live.start()
    live.stop()
    said = live.walras("prices", check=False)
    assert "is `walras up` running?" in said
    assert len(said.splitlines()) == 1


# Manifests


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (None, "spec.budget: Required value"),
        ({}, "spec.budget.income: Required value"),
        ({"income": "-5/h"}, "must be zero or more"),
        ({"income": "5"}, 'such as "12/h"'),
        ({"income": 5}, "must be of type string"),
        ({"income": "5/h", "balance": "-1"}, "spec.budget.balance"),
        ({"income": "5/h", "weight": 0}, "greater than or equal to 1"),
    ],
)
def test_an_agent_without_a_budget_that_makes_sense_is_refused(
    fleet: httpx.Client, budget: Any, said: str
) -> None:
    agent = {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "wrong"},
        "spec": {} if budget is None else {"budget": budget},
    }
    assert said in refused(fleet.post(f"{WALRAS}/agents", json=agent))
    assert fleet.get(f"{WALRAS}/agents/wrong").status_code == 404


@pytest.mark.parametrize(
    ("limits", "annotations", "said"),
    [
        ({"walras.dev/milligpu": "1500"}, {}, "no whole number of devices"),
        ({"walras.dev/milligpu": "500", "nvidia.com/gpu": "1"}, {}, "not both"),
        ({"walras.dev/milligpu": "-5"}, {}, "must be greater than or equal to 0"),
        ({"nvidia.com/gpu": "0.5"}, {}, "must be an integer"),
        ({"walras.dev/gpu-memory-mib": "100"}, {}, "needs walras.dev/milligpu or nvidia.com/gpu"),
        ({"walras.dev/milligpu": "1"}, {"class": "vip"}, 'supported values: "latency", "standard", "batch"'),
        ({"walras.dev/milligpu": "1"}, {"max_price": "cheap"}, 'write a decimal such as "2.50"'),
        ({"walras.dev/milligpu": "1"}, {"max_price": "-1"}, "must be zero or more"),
        ({"walras.dev/milligpu": "1"}, {"term": "soon"}, 'such as "90s"'),
        ({"walras.dev/milligpu": "1"}, {"term": "10y"}, 'such as "90s"'),
        ({"walras.dev/milligpu": "1"}, {"term": "1ms"}, "must be between 1s and 7d"),
        ({"walras.dev/milligpu": "1"}, {"deadline": "tomorrow"}, "2030-01-31T12:00:00Z"),
        ({"walras.dev/milligpu": "1"}, {"restart_cost": "lots"}, 'write a decimal such as "2.50"'),
    ],
)
def test_a_pod_whose_request_cannot_be_read_is_refused(
    http: httpx.Client, limits: dict[str, str], annotations: dict[str, str], said: str
) -> None:
    assert said in refused(http.post(PODS, json=gpu_pod(limits, **annotations)))


def test_a_request_larger_than_any_device_is_explained(server: Live, acme: Path, http: httpx.Client) -> None:
    asked = {
        "two": ({"walras.dev/milligpu": "2000"}, "at most 1 such devices"),
        "many": ({"nvidia.com/gpu": "99"}, "at most 1 such devices"),
        "memory": ({"walras.dev/milligpu": "100", "walras.dev/gpu-memory-mib": "99999"}, "at most 16384 MiB"),
    }
    for name, (limits, _) in asked.items():
        assert http.post(PODS, json=gpu_pod(limits, name)).status_code == 201
    for name, (_, said) in asked.items():
        told = eventually(partial(explanation, http, name), f"{name} to be explained")
        assert said in told["message"] and told["reason"] == "TooLarge"
    for name, (_, said) in asked.items():
        assert said in server.walras("explain", f"bid/{name}", "--agent", "acme")
        assert said in server.kubectl(acme, "describe", "bid", name)
        http.delete(f"{PODS}/{name}")


def explanation(http: httpx.Client, bid: str) -> Any:
    return http.get(f"{BIDS}/{bid}").json().get("status", {}).get("explanation")


def test_a_pod_that_has_nothing_to_run_says_so(server: Live, acme: Path) -> None:
    nothing, missing = pod("nothing", ""), pod("missing", "")
    del nothing["spec"]["containers"][0]["command"]
    missing["spec"]["containers"][0]["command"] = ["/no/such/program"]
    server.apply(acme, nothing, missing)

    def states() -> Any:
        found = server.get(acme, "pods", "nothing", "missing")["items"]
        shown = [each["status"].get("containerStatuses", [{}])[0].get("state", {}) for each in found]
        return shown if "waiting" in shown[0] and "terminated" in shown[1] else None

    waiting, ended = eventually(states, "both to be told")
    assert "has no command: the process runtime runs programs" in waiting["waiting"]["message"]
    assert ended["terminated"]["reason"] == "StartError"
    assert "no such file or directory" in ended["terminated"]["message"]
    assert "pulls no images" in server.kubectl(acme, "describe", "pod", "nothing")
    server.kubectl(acme, "delete", "pod", "nothing", "missing")


@pytest.mark.parametrize(
    ("content", "kind", "code", "said"),
    [
        ("{not json", "json", 400, "JSON is malformed"),
        ("[]", "json", 400, "cannot unmarshal"),
        ("a: [", "yaml", 400, "error converting YAML to JSON"),
        ("a: &a [*a]", "yaml", 400, "aliases are not accepted"),
        ('{"metadata": {"name": "x"}, "spec": {"containers": "none"}}', "json", 400, "cannot unmarshal"),
        ('{"metadata": {"name": "x"}, "spec": {"contaners": []}}', "json", 400, 'unknown field "spec.contan'),
        ('{"kind": "Secret", "metadata": {"name": "x"}}', "json", 400, "Secret"),
        ('{"metadata": {"name": "No Name"}}', "json", 422, "RFC 1123"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "json", 400, ""),
        ("<pod/>", "xml", 415, "application/json"),
    ],
)
def test_a_broken_manifest_is_refused(
    http: httpx.Client, content: str, kind: str, code: int, said: str
) -> None:
    headers = {"content-type": f"application/{kind}"}
    path = f"{PODS}?fieldValidation=Strict"
    assert said in refused(http.post(path, content=content.encode(), headers=headers), code)


def test_kubectl_shows_what_is_wrong_with_a_manifest(server: Live, acme: Path) -> None:
    typo = pod("typo", "true")
    typo["spec"]["restartPolcy"] = "Never"
    said = server.kubectl(acme, "apply", "-f", "-", stdin=yaml.safe_dump(typo), check=False)
    assert 'unknown field "spec.restartPolcy"' in said
    said = server.kubectl(acme, "apply", "-f", "-", stdin="kind: Pod\n  bad: [", check=False)
    assert "error" in said.lower() and "Traceback" not in said


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"spec": {"type": "object"}}}, "type: Required value"),
        ({"type": "object", "properties": {"spec": {"$ref": "#/x"}}}, "$ref"),
        ({"type": "object", "properties": {"spec": {"type": "string", "pattern": "(["}}}, "pattern"),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]}, "rule"),
    ],
)
def test_a_definition_without_a_structural_schema_is_refused(
    http: httpx.Client, schema: dict[str, Any], said: str
) -> None:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [version],
    }
    assert said in refused(http.post(CRDS, json={"metadata": {"name": "things.example.com"}, "spec": spec}))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"tick": "1ms"}, "between 100ms and 1m"),
        ({"tick": "365d"}, "between 100ms and 1m"),
        ({"tick": "-1s"}, "such as"),
        ({"minimumQuantum": "365d"}, "between 0s and 1d"),
        ({"notice": "99999d"}, "between 0s and 1h"),
        ({"reservePrice": "-1"}, "must be zero or more"),
        ({"epsilonPercent": 0}, "greater than or equal to 1"),
        ({"mechanism": "lottery"}, "Unsupported value"),
    ],
)
def test_rules_by_which_no_market_could_work_are_refused(
    fleet: httpx.Client, spec: dict[str, Any], said: str
) -> None:
    merge = {"content-type": "application/merge-patch+json"}
    assert said in refused(fleet.patch(f"{WALRAS}/pools/default", json={"spec": spec}, headers=merge))


def test_the_market_itself_cannot_be_deleted(fleet: httpx.Client) -> None:
    assert "change its spec instead" in refused(fleet.delete(f"{WALRAS}/pools/default"), 403)
    assert "change its spec instead" in refused(fleet.delete(f"{WALRAS}/pools"), 403)


# What goes away while it is in use


def books(server: Live) -> dict[str, Any]:
    ledger = json.loads(server.walras("ledger", "-o", "json"))
    assert ledger["balanced"] is True
    return {account["id"]: account for account in ledger["accounts"]}


def stubborn(name: str, mark: str, milli: int, price: str = "1.00", job_class: str = "latency") -> Any:
    """A pod that ignores SIGTERM, with a mark to find its processes by."""
    made = pod(name, f"trap '' TERM; while :; do sleep 1; done; : {mark}", milli=milli, price=price,
               job_class=job_class)  # fmt: skip
    made["spec"]["terminationGracePeriodSeconds"] = 30
    return made


def test_what_an_agent_deletes_under_a_lease_ends_it_and_gives_the_rest_of_its_money_back(
    server: Live,
) -> None:
    two = server.agent("deletes", "--balance", "50")

    def running(name: str, namespace: str = "default") -> None:
        eventually(
            lambda: server.get(two, "pod", name, "-n", namespace)["status"].get("phase") == "Running", name
        )

    def all_gone(mark: str) -> None:
        eventually(lambda: len(server.get(two, "nodes")["items"]) == 1, "the lease's node to go")
        assert not processes(mark)
        eventually(lambda: books(server)["agent:deletes"]["held"] == "0.00", "the hold to be released")

    # The pod, by force.
    server.apply(two, stubborn("forced", "mark-forced", 300))
    running("forced")
    server.kubectl(two, "delete", "pod", "forced", "--force", "--grace-period=0")
    all_gone("mark-forced")

    # Its bid: the lease goes on, and is there to be seen, until its pod is gone.
    server.apply(two, stubborn("bidless", "mark-bidless", 300))
    running("bidless")
    server.kubectl(two, "delete", "bid", "bidless")
    assert server.get(two, "gpuleases")["items"][0]["status"]["phase"] == "Active"
    assert phase(server, two, "bidless") == "Running"
    server.kubectl(two, "delete", "pod", "bidless", "--grace-period=1")
    all_gone("mark-bidless")

    # Its namespace.
    server.kubectl(two, "create", "namespace", "work")
    made = stubborn("housed", "mark-housed", 300)
    made["metadata"]["namespace"] = "work"
    made["spec"]["terminationGracePeriodSeconds"] = 1
    server.apply(two, made)
    running("housed", "work")
    server.kubectl(two, "delete", "namespace", "work")
    all_gone("mark-housed")


def test_an_agent_that_is_deleted_in_the_middle_leaves_nothing_and_may_come_again(server: Live) -> None:
    holder, rival = server.agent("holder", "--balance", "50"), server.agent("rival", "--balance", "50")
    # While its pod runs.
    server.apply(holder, stubborn("first", "mark-first", 1000, "0.50", "batch"))
    eventually(lambda: phase(server, holder, "first") == "Running", "first to run")
    server.walras("agent", "delete", "holder")
    assert not processes("mark-first")
    assert "agent:holder" not in books(server)

    # Made again it has its own balance, and while its lease drains and another's is reserved it goes too.
    holder = server.agent("holder", "--balance", "7")
    assert books(server)["agent:holder"]["balance"].startswith("7.0")
    assert server.get(holder, "pods")["items"] == []
    server.apply(holder, stubborn("second", "mark-second", 1000, "0.50", "batch"))
    eventually(lambda: phase(server, holder, "second") == "Running", "second to run")
    server.apply(rival, stubborn("query", "mark-query", 1000, "9.00"))

    def drains() -> bool:
        return [each["status"]["phase"] for each in server.get(holder, "gpuleases")["items"]] == ["Draining"]

    eventually(drains, "the lease to drain")
    assert [each["status"]["phase"] for each in server.get(rival, "gpuleases")["items"]] == ["Reserved"]
    server.walras("agent", "delete", "rival")
    server.walras("agent", "delete", "holder")
    assert not processes("mark-second") and not processes("mark-query")
    assert not {"agent:holder", "agent:rival"} & books(server).keys()


def test_an_agents_own_bid_is_locked_once_it_won(server: Live) -> None:
    own = server.agent("own", "--balance", "50")
    package = {"milliGPU": 400, "term": "30s"}
    packages = [package | {"maxPrice": f"{price}.00"} for price in range(1, 9)]
    bid = {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {"name": "any"},
        "spec": {"class": "latency", "packages": packages, "restartCost": "0.5"},
    }
    nine = bid | {"spec": {"class": "latency", "packages": [*packages, package | {"maxPrice": "9.00"}]}}
    said = server.kubectl(own, "create", "-f", "-", stdin=yaml.safe_dump(nine), check=False)
    assert "must have at most 8 items" in said
    server.apply(own, bid)
    before = eventually(lambda: server.get(own, "gpuleases")["items"], "the bid to win")[0]
    held = books(server)["agent:own"]["held"]
    for price in ("0.01", "900.00"):
        change = json.dumps({"spec": {"packages": [package | {"maxPrice": price}], "restartCost": "99"}})
        server.kubectl(own, "patch", "bid", "any", "--type", "merge", "-p", change)
    after = server.get(own, "gpuleases")["items"][0]
    assert after["spec"] == before["spec"] and after["status"]["phase"] == "Active"
    assert float(books(server)["agent:own"]["held"]) <= float(held)
    server.kubectl(own, "delete", "bid", "any")
    eventually(lambda: not server.get(own, "gpuleases")["items"], "the lease to end with its bid")
    assert books(server)["agent:own"]["held"] == "0.00"


def test_an_agent_whose_money_runs_out_is_drained_in_words(server: Live) -> None:
    poor = server.agent("poor", "--income", "0/h", "--balance", "0.00012")
    made = stubborn("spends", "mark-spends", 1000, "0.20")
    made["metadata"]["annotations"] |= {"walras.dev/term": "2s"}
    server.apply(poor, made)
    eventually(lambda: phase(server, poor, "spends") == "Running", "the pod to run")

    def reasons() -> set[str]:
        return {event["reason"] for event in server.get(poor, "events")["items"]}

    eventually(lambda: "OutOfFunds" in reasons(), "the money to run out")
    eventually(lambda: len(server.get(poor, "nodes")["items"]) == 1, "the node to go")
    assert not processes("mark-spends")
    left = books(server)["agent:poor"]
    assert left["held"] == "0.00" and float(left["balance"]) >= 0


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_writes_in_words_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    live = Live(small_disk / "data")
    filler = small_disk / "filler"
    try:
        live.start()
        acme = live.agent("acme", "--balance", "50")
        live.apply(acme, pod("works", "while :; do echo on; sleep 0.1; done", milli=300, job_class="latency"))
        eventually(lambda: phase(live, acme, "works") == "Running", "the pod to run")
        live.kubectl(acme, "create", "configmap", "before", "--from-literal=a=b")
        _fill(filler)

        def is_full() -> bool:
            said = live.kubectl(acme, "create", "configmap", f"x{os.urandom(4).hex()}", check=False)
            return "is full; free some space and try again" in said

        eventually(is_full, "a write to be refused")
        eventually(lambda: "the store refused a step" in _log(small_disk), "the market to notice")
        # Reads go on, what runs goes on, the books hold.
        assert phase(live, acme, "works") == "Running"
        assert json.loads(live.walras("ledger", "-o", "json"))["balanced"] is True
        before = live.get(acme, "gpuleases")["items"][0]["status"]["meteredSeconds"]
        filler.unlink()
        eventually(lambda: "the store takes steps again" in _log(small_disk), "the market to go on")
        live.kubectl(acme, "create", "configmap", "after", "--from-literal=a=b")
        eventually(
            lambda: live.get(acme, "gpuleases")["items"][0]["status"]["meteredSeconds"] > before + 1,
            "the meter to go on",
        )
        assert live.walras("cost").count("they agree") == 1
        # A stop and a start later, with no room in between, everything acknowledged is there.
        _fill(filler)
        live.stop()
        said = run(BIN / "walras", "up", "--data", live.data, "--listen", "127.0.0.1:0", check=False)
        assert "is full" in said and "Traceback" not in said
        filler.unlink()
        live.start()
        with live.client(live.operator) as client:
            kept = client.get("/clusters/acme/api/v1/namespaces/default/configmaps").json()["items"]
        names = {each["metadata"]["name"] for each in kept}
        assert {"before", "after"} <= names
        assert json.loads(live.walras("ledger", "-o", "json"))["balanced"] is True
    finally:
        filler.unlink(missing_ok=True)
        if live.process is not None:
            live.stop()
    assert "Traceback" not in _log(small_disk)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return


def _log(folder: Path) -> str:
    return (folder / "server.log").read_text()
