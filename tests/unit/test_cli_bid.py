"""`walras bid` and `walras agent grant`: what is sent, what is said of the answer, what is refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from support.command import Fake, Object, Walras


class TestBids:
    QUOTE = "/clusters/search/walras/v1/quote"
    BIDS = "/clusters/search/apis/walras.dev/v1alpha1/namespaces/default/bids"
    WON: ClassVar[Object] = {
        "outcome": "Won", "package": 0, "devices": 2, "milliGPU": 250, "memory": "10Gi", "price": "1.20",
        "starts": "AfterNotice", "notice": "2s", "term": "10m", "cost": "0.10", "displaces": True,
        "compensation": "0.02",
    }  # fmt: skip

    def test_options_become_a_bid(self, fake: Fake, walras: Walras) -> None:
        fake.says("POST", self.BIDS, {"metadata": {"name": "wish"}}, code=201)
        said = walras.ok(
            "bid", "--agent", "search", "--name", "wish", "--class", "latency", "--milligpu", "250",
            "--devices", "2", "--memory", "10Gi", "--max-price", "2.50", "--term", "10m",
            "--selector", "device.driver == 'x'", "--devices-min", "1", "--topology", "nvlink",
            "--decay-from", "2029-01-01T00:00:00Z", "--deadline", "2030-01-01T00:00:00Z",
            "--restart-cost", "0.02",
        )  # fmt: skip
        assert "walras explain bid/wish --agent search" in said
        assert fake.requests[-1][3] == {
            "apiVersion": "walras.dev/v1alpha1",
            "kind": "Bid",
            "metadata": {"name": "wish", "namespace": "default"},
            "spec": {
                "class": "latency",
                "deadline": "2030-01-01T00:00:00Z",
                "decayFrom": "2029-01-01T00:00:00Z",
                "restartCost": "0.02",
                "packages": [
                    {
                        "devices": 2, "milliGPU": 250, "memory": "10Gi", "term": "10m", "maxPrice": "2.50",
                        "selector": "device.driver == 'x'", "devicesMin": 1, "topology": "nvlink",
                    }
                ],
            },
        }  # fmt: skip

    def test_an_agent_bids_for_itself_with_little(self, fake: Fake, walras: Walras, as_search: str) -> None:
        bids = self.BIDS.replace("/default/", "/work/")
        fake.says("POST", bids, {"metadata": {"name": "bid-x"}}, code=201)
        said = walras.ok("bid", "--max-price", "1", "-n", "work", "-o", "json", "--kubeconfig", as_search)
        assert json.loads(said) == {"metadata": {"name": "bid-x"}}
        sent = fake.requests[-1][3]
        assert sent["metadata"] == {"generateName": "bid-", "namespace": "work"}
        assert sent["spec"] == {"class": "standard", "packages": [{"maxPrice": "1"}]}

    def test_a_file_is_sent_as_it_is_with_its_times_as_text(
        self, fake: Fake, walras: Walras, tmp_path: Path
    ) -> None:
        file = tmp_path / "bid.yaml"
        file.write_text(
            "kind: Bid\nmetadata: {name: two, namespace: work}\n"
            "spec: {class: batch, deadline: 2030-01-01T00:00:00Z, packages: [{maxPrice: '1'}, {}]}"
        )
        fake.says("POST", self.QUOTE, self.WON)
        walras.ok("bid", "-f", str(file), "--agent", "search", "--dry-run")
        sent = fake.requests[-1][3]
        assert sent["metadata"] == {"name": "two", "namespace": "work"}
        assert sent["spec"]["deadline"] == "2030-01-01T00:00:00Z"
        assert len(sent["spec"]["packages"]) == 2

    def test_a_dry_run_says_what_would_be_won(self, fake: Fake, walras: Walras) -> None:
        fake.says("POST", self.QUOTE, self.WON)
        said = walras.ok("bid", "--agent", "search", "--max-price", "2", "--dry-run")
        for part in (
            "2 devices with 250 milli-GPU and 10Gi each",
            "1.20 credits",
            "within 2s",
            "0.10",
            "0.02",
        ):
            assert part in said
        assert [request[:2] for request in fake.requests] == [("POST", self.QUOTE)], "and makes no bid"
        free = {**self.WON, "devices": 1, "starts": "Now", "displaces": False}
        fake.says("POST", self.QUOTE, free)
        said = walras.ok("bid", "--agent", "search", "--max-price", "2", "--dry-run")
        assert "now" in said and "nobody" in said
        said = walras.ok("bid", "--agent", "search", "--max-price", "2", "--dry-run", "-o", "json")
        assert json.loads(said) == free

    def test_a_dry_run_that_would_lose_exits_with_1_and_says_why(self, fake: Fake, walras: Walras) -> None:
        explanation = {"reason": "Outbid", "message": "others pay more", "winningPrice": "2.62"}
        fake.says("POST", self.QUOTE, {"outcome": "Refused", "explanation": explanation})
        for output in ("table", "yaml"):
            result = walras("bid", "--agent", "search", "--max-price", "2", "--dry-run", "-o", output)
            assert result.exit_code == 1
            assert "others pay more" in result.stdout and "2.62" in result.stdout
            assert result.stderr == ""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--max-price", "1"], "name an agent with --agent"),
            (["--agent", "search"], "--max-price"),
            (["--agent", "search", "--max-price", "dear"], '"dear" is not an amount'),
            (["--agent", "search", "--max-price", "1", "--milligpu", "1001"], "1001"),
            (["--agent", "search", "-f", "-", "--class", "batch"], "leave out --class"),
            (["--agent", "search", "-f", "none.yaml"], "none.yaml"),
        ],
    )
    def test_a_command_line_that_is_no_bid_is_refused(
        self, walras: Walras, arguments: list[str], message: str
    ) -> None:
        assert message in walras.fails("bid", *arguments, code=2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("kind: Pod", "kind Bid"),
            ("- 1", "one Bid"),
            ("kind: Bid\n---\nkind: Bid", "one Bid"),
            ("{", "one Bid"),
            ("kind: Bid\nmetadata: 1", "metadata"),
            ("kind: Bid\nmetadata: {namespace: other}", 'namespace "other"'),
        ],
    )
    def test_a_file_that_is_no_bid_is_refused(
        self, walras: Walras, tmp_path: Path, text: str, message: str
    ) -> None:
        (tmp_path / "bid.yaml").write_text(text)
        said = walras.fails("bid", "--agent", "search", "-n", "work", "-f", str(tmp_path / "bid.yaml"))
        assert message in said

    def test_what_the_server_refuses_is_passed_on(self, fake: Fake, walras: Walras) -> None:
        fake.refuses("POST", self.QUOTE, 429, "TooManyRequests", "quotes are answered 2 a second")
        said = walras.fails("bid", "--agent", "search", "--max-price", "2", "--dry-run")
        assert said == "Error: quotes are answered 2 a second"


class TestGrants:
    GRANTS = "/clusters/fleet/walras/v1/grants"
    MADE: ClassVar[Object] = {
        "agent": "search", "credits": "5.00", "id": "march", "made": True, "balance": "17.00",
    }  # fmt: skip

    def test_a_grant_is_posted_with_its_id(self, fake: Fake, walras: Walras) -> None:
        fake.says("POST", self.GRANTS, self.MADE, {**self.MADE, "made": False})
        said = walras.ok("agent", "grant", "search", "5", "--id", "march", "--force")
        assert fake.requests[-1][3] == {"agent": "search", "credits": "5", "id": "march", "force": True}
        assert 'Agent "search" got 5.00 credits' in said and "17.00" in said
        assert "had got already" in walras.ok("agent", "grant", "search", "5", "--id", "march")

    def test_each_grant_without_an_id_has_one_of_its_own(self, fake: Fake, walras: Walras) -> None:
        fake.says("POST", self.GRANTS, self.MADE)
        for _ in range(2):
            assert json.loads(walras.ok("agent", "grant", "search", "5", "-o", "json")) == self.MADE
        first, second = (request[3]["id"] for request in fake.requests)
        assert first and first != second

    def test_one_that_may_have_been_made_says_how_to_repeat_it(self, fake: Fake, walras: Walras) -> None:
        fake.refuses("POST", self.GRANTS, 503, "ServiceUnavailable", "the store refuses writes")
        said = walras.fails("agent", "grant", "search", "5")
        assert f"--id {fake.requests[-1][3]['id']}" in said

    @pytest.mark.parametrize("credits", ["0", "-1", "many", "0.0000001"])
    def test_what_is_no_amount_is_refused(self, walras: Walras, credits: str) -> None:
        walras.fails("agent", "grant", "search", "--", credits, code=2)
