from __future__ import annotations

import base64
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.books import save
from support.command import Fake, Object, Walras, kubeconfig, status

from walras.cli import agent, watching
from walras.core.clock import SequenceIds, VirtualClock
from walras.cost import usage
from walras.exchange.treasury import Treasury
from walras.kube.api import API
from walras.kube.store.sqlite import SqliteStore

AGENTS = "/clusters/fleet/apis/walras.dev/v1alpha1/agents"
EVERY_BID = "/clusters/*/apis/walras.dev/v1alpha1/bids"
EVERY_LEASE = "/clusters/*/apis/walras.dev/v1alpha1/gpuleases"


def an_agent(name: str = "search", *, ready: str = "True", message: str = "") -> Object:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"budget": {"income": "12/h", "weight": 3}},
        "status": {
            "endpoint": f"https://h:1/clusters/{name}",
            "balance": "97.20",
            "leases": 0,
            "conditions": [{"type": "Ready", "status": ready, "message": message}],
        },
    }


def a_bid(name: str = "trainer-0", cluster: str = "search", version: str = "1", **wanted: Any) -> Object:
    explanation = {
        "reason": "Outbid", "constraint": "milliGPU", "clearingPrice": "2.61", "winningPrice": "2.62",
        "position": 7, "message": "7th in the order; 2.62 would have won",
    }  # fmt: skip
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"{cluster}-{name}",
            "resourceVersion": version,
            "annotations": {"walras.dev/cluster": cluster},
        },
        "spec": {
            "class": "batch",
            "packages": [
                {"milliGPU": 500, "maxPrice": "2.50"},
                {"devices": 2},
                {"devices": 4, "devicesMin": 2},
                {"migProfile": "1g.10gb"},
            ],
        },
        "status": {
            "phase": "Refused",
            "explanation": explanation,
            **wanted,
        },
    }


def a_list(*items: Object) -> Object:
    return {"kind": "List", "apiVersion": "v1", "items": list(items)}


def events(*pairs: tuple[str, Object]) -> bytes:
    """The body of a watch that ends."""
    return b"".join(json.dumps({"type": kind, "object": item}).encode() + b"\n" for kind, item in pairs)


def a_secret(name: str, port: int) -> Object:
    content = yaml.safe_dump(kubeconfig(name, port)).encode()
    return {"data": {"kubeconfig": base64.b64encode(content).decode()}}


def secret_path(name: str) -> str:
    return f"/clusters/fleet/api/v1/namespaces/walras-system/secrets/agent-{name}"


class TestAgents:
    def test_creating_posts_the_budget_and_says_how_to_go_on(self, fake: Fake, walras: Walras) -> None:
        fake.says("POST", AGENTS, an_agent(), code=201)
        fake.says("GET", f"{AGENTS}/search", an_agent())
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        said = walras.ok(
            "agent", "create", "search", "--income", "12/h", "--weight", "3", "--balance", "5",
            "--wallet-cap", "288", "--max-price", "4.00", "--guaranteed", "1500",
        )  # fmt: skip
        assert 'Agent "search" is ready at https://h:1/clusters/search' in said
        assert "walras connect search" in said
        method, path, _, sent, token = fake.requests[0]
        assert (method, path, token) == ("POST", AGENTS, "Bearer fleet-token")
        assert sent["spec"] == {
            "budget": {"income": "12/h", "weight": 3, "guaranteed": 1500, "balance": "5", "walletCap": "288"},
            "market": {"maxPrice": "4.00"},
        }

    def test_what_is_not_said_is_left_to_the_server(self, fake: Fake, walras: Walras) -> None:
        fake.says("POST", AGENTS, an_agent(), code=201)
        fake.says("GET", f"{AGENTS}/search", an_agent())
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        walras.ok("agent", "create", "search", "--income", "1/m")
        assert fake.requests[0][3]["spec"] == {"budget": {"income": "1/m", "weight": 1}}

    def test_creating_waits_until_ready_and_writes_a_private_kubeconfig(
        self, fake: Fake, walras: Walras, tmp_path: Path
    ) -> None:
        file = tmp_path / "new" / "search.kubeconfig"
        fake.says("POST", AGENTS, an_agent(), code=201)
        fake.says("GET", f"{AGENTS}/search", an_agent(ready="False"), an_agent(ready="Unknown"), an_agent())
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        said = walras.ok("agent", "create", "search", "--income", "12/h", "--kubeconfig", str(file))
        assert f"KUBECONFIG={file}" in said
        assert yaml.safe_load(file.read_text()) == kubeconfig("search", fake.port)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_what_was_made_is_told_as_json(self, fake: Fake, walras: Walras, tmp_path: Path) -> None:
        file = tmp_path / "search.kubeconfig"
        fake.says("POST", AGENTS, an_agent(), code=201)
        fake.says("GET", f"{AGENTS}/search", an_agent())
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        said = walras.ok(
            "agent", "create", "search", "--income", "12/h", "--kubeconfig", str(file), "-o", "json"
        )
        assert json.loads(said) == an_agent()
        assert file.exists()

    def test_one_that_never_gets_ready_is_reported_with_its_condition(
        self, fake: Fake, walras: Walras, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent, "DEADLINE_S", 0.0)
        fake.says("POST", AGENTS, an_agent(), code=201)
        fake.says("GET", f"{AGENTS}/search", an_agent(ready="False", message="no disk left"))
        assert "not ready after 0 s: no disk left" in walras.fails(
            "agent", "create", "search", "--income", "1/h"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["Search", "--income", "1/h"], '"Search" is not a name; use lower-case'),
            (["a" * 64, "--income", "1/h"], "at most 63"),
            (["fleet", "--income", "1/h"], "choose another name"),
            (["x", "--income", "12"], '"12" is not a rate'),
            (["x", "--income", "-1/h"], '"-1" is negative'),
            (["x", "--income", "1/h", "--balance", "-5"], '"-5" is negative'),
            (["x", "--income", "1/h", "--balance", "lots"], '"lots" is not an amount'),
            (["x", "--income", "1/h", "--max-price", "1.2345678"], "is not an amount"),
            (["x", "--income", "1/h", "--weight", "0"], "0 is not in the range"),
            (["x"], "Missing option '--income'"),
        ],
    )
    def test_bad_input_is_refused_before_the_server_is_asked(
        self, fake: Fake, walras: Walras, arguments: list[str], message: str
    ) -> None:
        assert message in walras.fails("agent", "create", *arguments, code=2)
        assert fake.requests == []

    def test_one_that_exists_is_pointed_to(self, fake: Fake, walras: Walras) -> None:
        fake.refuses("POST", AGENTS, 409, "AlreadyExists", 'agents.walras.dev "search" already exists')
        said = walras.fails("agent", "create", "search", "--income", "1/h")
        assert said == 'Error: agent "search" exists already; see it with `walras agent show search`'

    def test_what_the_server_finds_invalid_is_passed_on(self, fake: Fake, walras: Walras) -> None:
        fake.refuses("POST", AGENTS, 422, "Invalid", 'Agent "x" is invalid: spec: too much')
        assert walras.fails("agent", "create", "x", "--income", "1/h") == (
            'Error: Agent "x" is invalid: spec: too much'
        )

    def test_listing_shows_budgets_and_hints_when_there_are_none(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", AGENTS, a_list(an_agent(), an_agent("train", ready="False")))
        lines = walras.ok("agent", "list").splitlines()
        assert lines[0].split() == [
            "NAME", "INCOME", "WEIGHT", "BALANCE", "SPEND/H", "RUNWAY", "LEASES", "READY", "AGE",
        ]  # fmt: skip
        assert lines[2].split()[:8] == ["train", "12/h", "3", "97.20", "-", "-", "0", "False"]
        assert "https://h:1/clusters/train" in walras.ok("agent", "list", "-o", "wide")
        fake.says("GET", AGENTS, a_list())
        result = walras("agent", "list")
        assert (result.exit_code, result.stdout) == (0, "") and "walras agent create" in result.stderr

    def test_showing_gives_facts_or_the_object(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", f"{AGENTS}/search", an_agent(ready="False", message="starting"))
        said = walras.ok("agent", "show", "search")
        assert "Balance:" in said and "False: starting" in said
        assert json.loads(walras.ok("agent", "show", "search", "-o", "json"))["metadata"]["name"] == "search"
        assert 'there is no agent "nobody"' in walras.fails("agent", "show", "nobody")

    def test_deleting_waits_until_it_is_gone(self, fake: Fake, walras: Walras) -> None:
        gone = (404, status(404, "NotFound", "gone"))
        fake.answers["GET", f"{AGENTS}/search"] = [(200, an_agent()), (200, an_agent()), gone]
        fake.says("DELETE", f"{AGENTS}/search", an_agent())
        assert walras.ok("agent", "delete", "search") == 'Agent "search" is deleted.\n'
        assert [request[0] for request in fake.requests] == ["GET", "DELETE", "GET", "GET"]
        assert 'there is no agent "search"' in walras.fails("agent", "delete", "search")

    def test_a_namesake_made_meanwhile_does_not_hold_up_a_deletion(self, fake: Fake, walras: Walras) -> None:
        other = an_agent()
        other["metadata"]["uid"] = "another"
        fake.says("GET", f"{AGENTS}/search", an_agent(), other)
        fake.says("DELETE", f"{AGENTS}/search", an_agent())
        assert "is deleted" in walras.ok("agent", "delete", "search", "--yes")


class TestConnect:
    def test_connect_and_disconnect_switch_kubectls_context(
        self, fake: Fake, walras: Walras, tmp_path: Path
    ) -> None:
        mine = tmp_path / "kube" / "config"
        mine.parent.mkdir()
        mine.write_text(yaml.safe_dump(kubeconfig("dev", 1)))
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        assert "walras disconnect search" in walras.ok("connect", "search")
        config = yaml.safe_load(mine.read_text())
        assert config["current-context"] == "walras-search"
        assert [user["user"]["token"] for user in config["users"]] == ["dev-token", "search-token"]
        assert 'the current context is "dev"' in walras.ok("disconnect")
        assert yaml.safe_load(mine.read_text()) == kubeconfig("dev", 1)
        assert walras.ok("disconnect") == "Not connected to any agent.\n"
        assert 'not connected to "search"' in walras.fails("disconnect", "search")

    def test_a_command_gets_a_private_kubeconfig_and_gives_its_exit_code(
        self, fake: Fake, walras: Walras, tmp_path: Path
    ) -> None:
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        script = f'cp "$KUBECONFIG" {tmp_path}/seen; echo "$KUBECONFIG $1 $2" > {tmp_path}/said; exit 7'
        result = walras("connect", "search", "--", "sh", "-c", script, "sh", "--help", "-A")
        assert result.exit_code == 7
        path, *rest = (tmp_path / "said").read_text().split()
        assert rest == ["--help", "-A"]
        assert yaml.safe_load((tmp_path / "seen").read_text()) == kubeconfig("search", fake.port)
        assert not Path(path).parent.exists()
        assert not (tmp_path / "kube").exists()

    def test_a_command_that_dies_of_a_signal_or_is_not_there_exits_as_in_a_shell(
        self, fake: Fake, walras: Walras, tmp_path: Path
    ) -> None:
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        assert walras("connect", "search", "--", "sh", "-c", "kill -9 $$").exit_code == 137
        assert "no-such-program: command not found" in walras.fails(
            "connect", "search", "--", "no-such-program", code=127
        )
        assert "may not be executed" in walras.fails("connect", "search", "--", str(tmp_path), code=126)

    def test_an_agent_connects_to_itself_and_to_no_other(self, walras: Walras, as_search: str) -> None:
        assert "(context walras-search" in walras.ok("connect", "search", WALRAS_KUBECONFIG=as_search)
        said = walras.fails("connect", "train", WALRAS_KUBECONFIG=as_search)
        assert 'only the operator opens "train"' in said

    def test_an_unknown_agent_and_a_broken_kubeconfig_are_named(
        self, fake: Fake, walras: Walras, tmp_path: Path
    ) -> None:
        assert 'there is no agent "nobody"' in walras.fails("connect", "nobody")
        fake.says("GET", secret_path("search"), a_secret("search", fake.port))
        (tmp_path / "broken").write_text("{")
        said = walras.fails("connect", "search", KUBECONFIG=str(tmp_path / "broken"))
        assert f"{tmp_path}/broken is not YAML" in said
        assert (tmp_path / "broken").read_text() == "{"


class TestReading:
    def test_the_operator_sees_the_bids_of_all_agents(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", EVERY_BID, a_list(a_bid(), a_bid("serve-0", "train")))
        lines = walras.ok("bids").splitlines()
        assert lines[0].split() == [
            "AGENT",
            "NAMESPACE",
            "NAME",
            "CLASS",
            "GPUS",
            "MAX",
            "PHASE",
            "REASON",
            "LEASE",
            "AGE",
        ]
        assert lines[2].split()[:6] == [
            "train",
            "default",
            "serve-0",
            "batch",
            "500m|2x1000m|2-4x1000m|1g.10gb",
            "2.50|||",
        ]
        assert "2.62" in walras.ok("bids", "-o", "wide", "-A")
        assert len(json.loads(walras.ok("bids", "-o", "json"))["items"]) == 2
        assert yaml.safe_load(walras.ok("bids", "-n", "other", "-o", "yaml"))["items"] == []

    def test_one_agent_is_read_in_its_own_cluster(self, fake: Fake, walras: Walras, as_search: str) -> None:
        fake.says("GET", "/clusters/train/apis/walras.dev/v1alpha1/bids", a_list(a_bid()))
        assert walras.ok("bids", "--agent", "train").startswith("NAMESPACE ")
        path = "/clusters/search/apis/walras.dev/v1alpha1/namespaces/default/bids"
        fake.says("GET", path, a_list(a_bid()))
        assert "trainer-0" in walras.ok("bids", "--kubeconfig", as_search, "-n", "default")
        assert fake.requests[-1][4] == "Bearer search-token"
        assert "sees only itself" in walras.fails("bids", "-A", "--kubeconfig", as_search)
        assert "exclude each other" in walras.fails("bids", "-A", "--agent", "x", code=2)

    def test_leases_tell_devices_shares_and_when_they_end(self, fake: Fake, walras: Walras) -> None:
        devices = [
            {"device": "gpu-0", "milliGPU": 250, "enforcement": "mps"},
            {"device": "gpu-1", "milliGPU": 250},
        ]
        lease = {
            "metadata": {"name": "lease-1", "namespace": "default", "uid": "u"},
            "spec": {"class": "latency", "price": "1.80", "devices": devices, "end": "2020-01-01T00:00:00Z"},
            "status": {"phase": "Active", "node": "lease-1", "charged": "0.05"},
        }
        fake.says("GET", EVERY_LEASE, a_list(lease))
        row = walras.ok("leases").splitlines()[1].split()
        assert row[3:11] == ["Active", "latency", "1.80", "gpu-0,gpu-1", "250,250", "lease-1", "0.05", "0s"]

    def test_nothing_there_says_so_on_stderr(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", EVERY_LEASE, a_list())
        result = walras("leases")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No leases found.\n")

    def test_watching_prints_again_what_changed_and_nothing_else(
        self, fake: Fake, walras: Walras, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(watching, "pause", pause)
        fake.says("GET", EVERY_BID, a_list(a_bid(), a_bid("b")))
        leased = a_bid(version="2", phase="Leased")
        first = events(
            ("ADDED", a_bid()), ("ADDED", a_bid("b")), ("MODIFIED", leased), ("DELETED", a_bid("b"))
        )
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too slow"}
        second = events(("ADDED", leased), ("ADDED", a_bid("c")), ("ERROR", gone))
        fake.says("WATCH", EVERY_BID, first, second)
        lines = walras.ok("bids", "-w").splitlines()
        assert [line.split()[2] for line in lines] == ["NAME", "trainer-0", "b", "trainer-0", "c"]
        assert lines[3].split()[6] == "Leased"
        assert lines[1].index("search") == lines[4].index("search")

    def test_a_watch_keeps_to_its_namespace_and_prints_documents_for_programs(
        self, fake: Fake, walras: Walras, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def pause(_: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(watching, "pause", pause)
        fake.says("GET", EVERY_BID, a_list(a_bid()))
        elsewhere = a_bid("b")
        elsewhere["metadata"]["namespace"] = "other"
        fake.says("WATCH", EVERY_BID, events(("ADDED", a_bid()), ("ADDED", elsewhere)))
        (line,) = walras.ok("bids", "-w", "-n", "other", "-o", "json").splitlines()
        assert json.loads(line)["metadata"]["name"] == "b"

    def test_a_watch_that_is_refused_or_fails_says_why(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", AGENTS, a_list())
        fake.refuses("WATCH", AGENTS, 429, "TooManyRequests", "too many watches")
        assert walras.fails("agent", "list", "-w") == "Error: too many watches"
        broken = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "out of memory"}
        fake.says("WATCH", AGENTS, events(("ERROR", broken)))
        assert walras.fails("agent", "list", "-w") == "Error: out of memory"

    def test_prices_are_listed_and_watched(
        self, fake: Fake, walras: Walras, as_search: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = {
            "name": "default", "mechanism": "auction", "price": "1.20", "postedPrice": "1.10",
            "reserve": "0.10", "devices": 4,
            "allocatedPercent": 62, "bids": 3, "leases": 5, "history": [[1, "0.60"], [2, "1.20"]],
        }  # fmt: skip
        fake.says("GET", "/clusters/fleet/walras/v1/prices", {"pools": [pool]})
        row = walras.ok("prices").splitlines()[1].split()
        assert row == ["default", "1.20", "1.10", "0.10", "4", "62%", "3", "5", "▅█"]
        assert walras.ok("prices", "-o", "wide").splitlines()[1].split()[1] == "auction"
        assert json.loads(walras.ok("prices", "-o", "json")) == {"pools": [pool]}
        fake.says("GET", "/clusters/search/walras/v1/prices", {"pools": []})
        assert walras.ok("prices", "--kubeconfig", as_search).splitlines()[0].startswith("POOL")

        def pause(_: float) -> None:
            if len(fake.requests) > 6:
                raise KeyboardInterrupt

        monkeypatch.setattr(watching, "pause", pause)
        fake.says(
            "GET",
            "/clusters/fleet/walras/v1/prices",
            {"pools": [pool]},
            {"pools": [{**pool, "price": "2.00"}]},
        )
        lines = walras.ok("prices", "-w", "-o", "json").splitlines()
        assert [json.loads(line)["price"] for line in lines] == ["1.20", "2.00"]


class TestExplain:
    EVENTS = "/clusters/search/api/v1/namespaces/default/events"

    def test_a_lost_bid_is_explained_in_full(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", EVERY_BID, a_list(a_bid(), a_bid("other")))
        event = {"type": "Normal", "reason": "Outbid", "message": "the price rose", "count": 3,
                 "lastTimestamp": "2020-01-01T00:00:00Z"}  # fmt: skip
        fake.says("GET", self.EVENTS, a_list(event))
        said = walras.ok("explain", "bid/trainer-0")
        for part in (
            "7th in the order",
            "Refused (Outbid)",
            "milliGPU",
            "2.61",
            "2.62",
            "7",
            "the price rose (x3)",
        ):
            assert part in said
        assert fake.requests[-1][2] == {
            "fieldSelector": ["involvedObject.kind=Bid,involvedObject.name=trainer-0"]
        }
        found = json.loads(walras.ok("explain", "pod/trainer-0", "-o", "json"))
        assert (
            found["winningPrice"] == "2.62" and found["position"] == 7 and found["constraint"] == "milliGPU"
        )
        assert found["agent"] == "search" and found["events"][0]["count"] == 3

    def test_a_bid_that_was_not_cleared_yet_is_pending(self, fake: Fake, walras: Walras) -> None:
        fresh = a_bid()
        fresh["status"] = {}
        fake.says("GET", EVERY_BID, a_list(fresh))
        assert ["Phase:", "Pending"] in [
            line.split() for line in walras.ok("explain", "trainer-0").splitlines()
        ]

    def test_a_name_that_is_not_there_or_there_twice_says_how_to_go_on(
        self, fake: Fake, walras: Walras
    ) -> None:
        fake.says("GET", EVERY_BID, a_list(a_bid(), a_bid(cluster="train")))
        assert 'no bid "x" of any agent; `walras bids` lists them' in walras.fails("explain", "bid/x")
        said = walras.fails("explain", "bid/trainer-0")
        assert "--agent search -n default, --agent train -n default" in said
        assert "is not bid/NAME" in walras.fails("explain", "node/x", code=2)
        assert "the name of the bid is missing" in walras.fails("explain", "bid/", code=2)


class TestMoney:
    COST = "/clusters/fleet/walras/v1/cost"
    LEDGER = "/clusters/fleet/walras/v1/ledger"

    def test_cost_sums_up_and_agrees_with_the_ledger(self, fake: Fake, walras: Walras) -> None:
        row = {"agent": "search", "gpuSeconds": 412, "charged": "0.0515", "chargedMicros": 51500}
        bill = {"rows": [row], "total": "0.0515", "ledger": "0.0515", "balanced": True, "since": "2h"}
        fake.says("GET", self.COST, bill)
        lines = walras.ok("cost", "--since", "2h", "--by", "agent").splitlines()
        assert lines[0].split() == ["AGENT", "GPU-SECONDS", "CHARGED"]
        assert lines[-1] == "Total of the last 2h: 0.0515; ledger: 0.0515; they agree"
        assert fake.requests[-1][2] == {"by": ["agent"], "since": ["2h"]}
        assert json.loads(walras.ok("cost", "-o", "json")) == bill

    def test_an_agent_reads_its_own_bill(self, fake: Fake, walras: Walras, as_search: str) -> None:
        fake.says("GET", "/clusters/search/walras/v1/cost", {"rows": [], "total": "0.00", "balanced": True})
        assert "Total: 0.00" in walras.ok("cost", "--kubeconfig", as_search)
        assert "Total of the last 1h: 0.00" in walras.ok("cost", "--agent", "search", "--since", "1h")

    def test_books_that_do_not_balance_fail_the_command(self, fake: Fake, walras: Walras) -> None:
        fake.says("GET", self.COST, {"rows": [], "total": "1.00", "ledger": "2.00", "balanced": False})
        assert "do not agree" in walras.fails("cost")
        account = {"name": "agent/search", "balance": "1.00"}
        fake.says("GET", "/clusters/fleet/walras/v1/ledger", {"accounts": [account], "balanced": False})
        assert "do not agree" in walras.fails("ledger", "-o", "json")

    def test_the_ledger_lists_its_accounts(self, fake: Fake, walras: Walras) -> None:
        account = {"name": "agent/search", "balance": "1.00", "pending": "0.00"}
        fake.says("GET", "/clusters/fleet/walras/v1/ledger", {"accounts": [account], "balanced": True})
        said = walras.ok("ledger")
        assert said.splitlines()[0].split() == ["NAME", "BALANCE", "PENDING"]
        assert "The books balance." in said

    def test_the_server_verifies_a_journal_that_cannot_be_read_here(self, fake: Fake, walras: Walras) -> None:
        whole = {
            "entries": 7,
            "head": "7:ab",
            "captured": "1",
            "metered": "1",
            "fault": None,
            "balanced": True,
        }
        fake.says("GET", self.LEDGER, whole)
        said = walras.ok("ledger", "verify")
        assert "7:ab" in said
        assert "whole and unaltered" in said
        assert fake.requests[-1][2] == {"verify": ["1"]}
        fault = {"entry": 3, "message": "entry 3 was altered"}
        fake.says("GET", self.LEDGER, {**whole, "fault": fault, "balanced": False})
        assert "Error: entry 3 was altered" in walras.fails("ledger", "verify", "--head", "7:ab")
        assert fake.requests[-1][2] == {"verify": ["1"], "head": ["7:ab"]}

    def test_the_journal_in_the_data_directory_is_verified_without_a_server(self, walras: Walras) -> None:
        store = SqliteStore(walras.data / "walras.db")
        store.migrate("usage", usage.MIGRATIONS)
        treasury = Treasury(store)
        treasury.open_pool("default", 1)
        save(API(store, VirtualClock(), SequenceIds()), treasury)
        found = json.loads(walras.ok("ledger", "verify", "-o", "json"))
        assert (found["entries"], found["fault"]) == (2, None)
        assert "whole" in walras.ok("ledger", "verify", "--head", found["head"]), "while one runs as well"
        store.close()
        head = "2:" + "0" * 64
        assert "rewritten" in walras.fails("ledger", "verify", "--head", head)
        assert "is not NUMBER:SEAL" in walras.fails("ledger", "verify", "--head", "2")

    def test_a_statement_is_read_page_by_page(self, fake: Fake, walras: Walras, as_search: str) -> None:
        def page(number: int, **more: str) -> Object:
            line = {"entry": number, "time": "t", "kind": "transfer", "with": "mint", "amount": "1.00"}
            at = [{"balance": f"{n}.00", "held": "0.00"} for n in (number - 1, number)]
            return {"account": "agent:search", "opening": at[0], "entries": [line], "closing": at[1], **more}

        path = "/clusters/fleet/walras/v1/statement"
        fake.says("GET", path, page(1, **{"continue": "5:1"}), page(2))
        said = walras.ok("ledger", "statement", "search", "--since", "1h")
        assert fake.requests[-2][2] == {"account": ["agent:search"], "since": ["1h"]}
        assert fake.requests[-1][2] == {"account": ["agent:search"], "since": ["1h"], "continue": ["5:1"]}
        assert "0.00, of which on hold 0.00" in said
        assert said.rstrip().endswith("2.00, of which on hold 0.00")
        fake.says("GET", path, page(1, **{"continue": "5:1"}), page(2))
        whole = json.loads(walras.ok("ledger", "statement", "revenue:default", "-o", "json"))
        assert [line["entry"] for line in whole["entries"]] == [1, 2]
        assert whole["closing"]["balance"] == "2.00"
        assert "continue" not in whole
        fake.says("GET", "/clusters/search/walras/v1/statement", page(1))
        assert "agent:search" in walras.ok("ledger", "statement", "--kubeconfig", as_search)
        assert fake.requests[-1][2] == {}

    def test_options_of_the_ledger_go_after_its_subcommand(self, walras: Walras) -> None:
        said = walras.fails("ledger", "--data", str(walras.data), "verify", code=2)
        assert "--data goes after verify" in said

    def test_a_span_that_is_none_is_refused(self, walras: Walras) -> None:
        assert '"soon" is not a duration' in walras.fails("cost", "--since", "soon", code=2)


class TestFailures:
    def test_a_server_that_is_not_running_is_asked_about(self, walras: Walras, fake: Fake) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (walras.data / "operator.kubeconfig").write_text(json.dumps(kubeconfig("fleet", port)))
        assert walras.fails("bids") == (
            f"Error: cannot connect to http://127.0.0.1:{port}: is `walras up` running?"
        )

    def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
        self, fake: Fake, walras: Walras
    ) -> None:
        fake.says("GET", EVERY_BID, a_list())
        assert walras("bids", HTTP_PROXY="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1").exit_code == 0

    def test_data_that_no_server_has_used_says_what_to_start(self, walras: Walras, tmp_path: Path) -> None:
        said = walras.fails("bids", "--data", str(tmp_path / "none"))
        assert "start one with `walras up`" in said and "none" in said
        assert "there is no kubeconfig /no/where" in walras.fails("bids", "--kubeconfig", "/no/where")

    def test_a_kubeconfig_of_another_cluster_is_told_apart(self, walras: Walras, tmp_path: Path) -> None:
        other = kubeconfig("x", 1)
        other["clusters"][0]["cluster"]["server"] = "https://kind:6443"
        (tmp_path / "other").write_text(json.dumps(other))
        assert "is not of Walras" in walras.fails("bids", "--kubeconfig", str(tmp_path / "other"))

    def test_data_on_the_command_line_is_nearer_than_a_kubeconfig_of_the_environment(
        self, fake: Fake, walras: Walras, as_search: str
    ) -> None:
        fake.says("GET", EVERY_BID, a_list())
        walras.ok("bids", "--data", str(walras.data), WALRAS_KUBECONFIG=as_search)
        assert fake.requests[-1][4] == "Bearer fleet-token"

    def test_a_token_that_is_no_longer_known_is_said_to_be_so(self, fake: Fake, walras: Walras) -> None:
        fake.refuses("GET", EVERY_BID, 401, "Unauthorized", "Unauthorized")
        assert "does not know the token in" in walras.fails("bids")

    def test_a_server_that_speaks_something_else_is_not_taken_for_walras(
        self, fake: Fake, walras: Walras
    ) -> None:
        fake.answers["GET", EVERY_BID] = [(502, b"<html>")]
        assert "answered 502, not as Walras does" in walras.fails("bids")

    def test_a_bug_is_one_line_too_unless_debugging(
        self, fake: Fake, walras: Walras, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.says("GET", EVERY_BID, {"kind": "BidList"})
        assert "unexpected KeyError: 'items'; WALRAS_DEBUG=1 shows where" in walras.fails("bids")
        assert isinstance(walras("bids", WALRAS_DEBUG="1").exception, KeyError)

    def test_agents_complete_at_the_tab_key_and_silence_is_no_error(self, fake: Fake, walras: Walras) -> None:
        environment = {
            "_WALRAS_COMPLETE": "bash_complete",
            "COMP_CWORD": "2",
            "COMP_WORDS": "walras connect s",
        }
        fake.says("GET", AGENTS, a_list(an_agent(), an_agent("train")))
        assert walras("connect", **environment).stdout == "plain,search\n"
        (walras.data / "operator.kubeconfig").unlink()
        assert walras("connect", **environment).output.strip() == ""
