from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from walras.cli import doctor, up
from walras.cli.main import main
from walras.core.errors import StorageError
from walras.runtimes.checks import Check
from walras.server.app import Ready
from walras.server.options import Options

GPUS = tuple(
    {"id": f"gpu-{i}", "model": "L4", "memory_mib": 23034, "enforcement": "emulated"} for i in range(2)
)


class Server:
    """Stands in for `serve`: notes its options, gets ready, is sent signals, and stops when it is told to."""

    def __init__(self, *signals: signal.Signals) -> None:
        self.signals = signals
        self.options: list[Options] = []
        self.drained = False

    async def serve(self, options: Options, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        self.options.append(options)
        data = options.data
        ready(
            Ready(
                url=f"https://{options.host}:{options.port}",
                ca_file=data / "ca.crt",
                kubeconfig=data / "operator.kubeconfig",
                data=data,
                devices=GPUS,
                notes=("no NVIDIA GPU was found",),
            )
        )
        for number in self.signals:
            os.kill(os.getpid(), number)
            await stop.wait()
            await asyncio.sleep(0)
        self.drained = True


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.delenv("WALRAS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def start(server: Server, *arguments: str) -> Any:
        monkeypatch.setattr(up, "serve", server.serve)
        return CliRunner().invoke(main, ["up", *arguments])

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_exits_0(starts: Callable[..., Any], number: signal.Signals) -> None:
    server = Server(number)
    result = starts(server)
    assert (result.exit_code, server.drained) == (0, True), result.output
    assert "Stopping" in result.stderr


def test_a_second_interrupt_exits_at_once(
    starts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    class Stubborn(Server):
        async def serve(self, options: Options, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
            await super().serve(options, ready, stop)
            while not codes:  # noqa: ASYNC110 - what would be waited for is stubbed out
                await asyncio.sleep(0)

    starts(Stubborn(signal.SIGINT, signal.SIGINT))
    assert codes == [130]


def test_json_is_one_line_for_programs(starts: Callable[..., Any], tmp_path: Path) -> None:
    result = starts(Server(signal.SIGTERM), "--json", "--data", str(tmp_path / "d"), "--listen", "0.0.0.0:9")
    (line,) = result.stdout.splitlines()
    assert json.loads(line) == {
        "url": "https://0.0.0.0:9",
        "ca_file": str(tmp_path / "d" / "ca.crt"),
        "kubeconfig": str(tmp_path / "d" / "operator.kubeconfig"),
        "data": str(tmp_path / "d"),
        "devices": list(GPUS),
    }


def test_a_person_is_told_what_there_is_and_how_to_go_on(starts: Callable[..., Any], tmp_path: Path) -> None:
    server = Server(signal.SIGTERM)
    said = starts(server).stdout
    assert server.options == [Options(tmp_path / ".local/share/walras", "127.0.0.1", 7443, "auto")]
    assert "Walras is up at https://127.0.0.1:7443" in said
    assert "2 x L4, 23034 MiB each, shares enforced: emulated" in said and "no NVIDIA GPU was found" in said
    assert "walras agent create" in said and "WALRAS_DATA" not in said
    assert f"export WALRAS_DATA={tmp_path}/d\n" in starts(server, "--data", str(tmp_path / "d")).stdout


def test_what_keeps_it_from_starting_is_one_line(
    starts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(Server):
        async def serve(self, options: Options, ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
            raise StorageError("the data is in use by process 7; stop it or choose another --data")

    result = starts(Busy())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: the data is in use by process 7; stop it or choose another --data\n"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7443", "127.0.0.1", 7443),
        (":80", "127.0.0.1", 80),
        ("[::1]:1", "::1", 1),
        ("box.local:65535", "box.local", 65535),
    ],
)
def test_listen_addresses_are_read(text: str, host: str, port: int) -> None:
    assert up.parse_listen(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "7443", "host:", "host:x", "host:65536", "host:-1", "::1:80", "h:\u0661"]
)
def test_what_is_no_address_is_refused(starts: Callable[..., Any], text: str) -> None:
    result = starts(Server(), "--listen", text)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "7443" in result.stderr


def test_doctor_says_what_is_missing_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [Check("bubblewrap", True, "0.8.0", ""), Check("cgroups", False, "not writable", "run as root")]
    monkeypatch.setattr(doctor, "checks", lambda _: found)
    result = CliRunner().invoke(main, ["doctor", "--data", str(tmp_path)])
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[:3] == [
        ["ok", "bubblewrap", "0.8.0"],
        ["--", "cgroups", "not", "writable"],
        ["run", "as", "root"],
    ]
    assert "none has run here" in result.output and "start one with `walras up`" in result.output
    result = CliRunner().invoke(main, ["doctor", "--data", str(tmp_path), "-o", "json"])
    assert [check["ok"] for check in json.loads(result.output)["checks"]] == [True, False, False]
