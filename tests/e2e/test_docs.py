"""Every command and manifest of README.md and docs/ does what the page says, in the order of the page.

A page is a session of its own: a shell in a folder of its own, with a home of its own and the examples beside
it. Pages that start a server themselves have that one; the others share one with two emulated GPUs and leave
no agent on it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import docs
from support.live import BIN, Live, serving
from support.runtimes import BUSYBOX, container_offer

from walras.runtimes.handlers import offers

COMMAND_TIMEOUT_S = 60.0
SERVER_TIMEOUT_S = 20.0
MARK = "--end-of-command--"
DATA = Path(".local/share/walras")
FLEET_KINDS = ("Agent", "Pool")

pytestmark = pytest.mark.e2e


class Shell:
    """A bash that remembers directories and variables from one command to the next."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "work"
        self.folder.mkdir()
        (self.folder / "examples").symlink_to(docs.ROOT / "examples")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WALRAS_", "KUBE"))}
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**kept, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"},
            start_new_session=True,
        )
        self._servers = 0
        self.run("set -o pipefail")

    def run(self, command: str) -> str:
        """What it printed. Fails the test when it fails, or takes too long."""
        script = f"{{ {command}\n}} < /dev/null\nprintf '%s %d\\n' {MARK} $?\n"
        assert self._bash.stdin is not None
        self._bash.stdin.write(script.encode())
        self._bash.stdin.flush()
        said = self._until_mark(command)
        output, _, code = said.rpartition(MARK)
        assert int(code) == 0, f"{command}\nexited {code.strip()} and said:\n{output}"
        return output

    def _until_mark(self, command: str) -> str:
        assert self._bash.stdout is not None
        out, said, deadline = self._bash.stdout.fileno(), b"", time.monotonic() + COMMAND_TIMEOUT_S
        while not re.search(rb"%s \d+\n$" % MARK.encode(), said):
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{command}\ntook more than {COMMAND_TIMEOUT_S:.0f} s and said:\n{said.decode()}"
            chunk = os.read(out, 65536)
            assert chunk, f"{command}\nended the shell; it said:\n{said.decode()}"
            said += chunk
        return said.decode()

    def start_server(self, command: str) -> None:
        """`walras up` as the page has it, on a free port, in the background, until it is ready."""
        self._servers += 1
        ready = self.folder / f"up-{self._servers}.json"
        ready.touch()
        self.run(f"{command} --listen 127.0.0.1:0 --json > {ready} 2>> {self.home}/server.log &")
        deadline = time.monotonic() + SERVER_TIMEOUT_S
        while not ready.read_text().endswith("\n"):
            assert time.monotonic() < deadline, (self.home / "server.log").read_text()
            time.sleep(0.05)

    def close(self) -> None:
        """Stops the servers and the shell."""
        if self._bash.poll() is None and self._bash.stdin is not None:
            self._bash.stdin.write(b"kill $(jobs -p) 2>/dev/null; wait; exit\n")
            self._bash.stdin.close()
        try:
            self._bash.wait(SERVER_TIMEOUT_S)
        finally:
            if self._bash.poll() is None:
                os.killpg(self._bash.pid, signal.SIGKILL)
                self._bash.wait()
            if self._bash.stdout is not None:
                self._bash.stdout.close()


def runnable(page: Path) -> list[docs.Block]:
    return [
        block
        for block in docs.blocks(page)
        if block.language in ("console", "bash", "yaml") and not block.not_run
    ]


def starts_server(command: str) -> bool:
    return re.match(r"walras up\b", command) is not None


def has_own_server(page: Path) -> bool:
    return any(starts_server(command) for block in runnable(page) for command in block.commands())


CONTAINERS = docs.DOCS / "how-to" / "run-containers.md"
PAGES = [page for page in docs.pages() if runnable(page)]


def page_id(page: Path) -> str:
    return str(page.relative_to(docs.ROOT))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("shared"), "emulated:2") as live:
        yield live


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    try:
        yield opened
    finally:
        opened.close()
        log = tmp_path / "server.log"
        assert not log.exists() or "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if not has_own_server(page)], ids=page_id)
def test_a_page_runs_beside_others_on_one_server(page: Path, shared: Live, shell: Shell) -> None:
    (shell.home / DATA).parent.mkdir(parents=True)
    (shell.home / DATA).symlink_to(shared.data)
    try:
        follow(page, shell)
    finally:
        shared.kubectl(shared.operator, "delete", "agents", "--all")


@pytest.mark.parametrize("page", [page for page in PAGES if has_own_server(page)], ids=page_id)
def test_a_page_that_starts_a_server_runs(page: Path, shell: Shell) -> None:
    if page == CONTAINERS and (container_offer().make is None or not BUSYBOX):
        pytest.skip(container_offer().detail)
    follow(page, shell)


def follow(page: Path, shell: Shell) -> None:
    """Do everything that the page says; a manifest that no command of it names is applied as a dry run."""
    there = {offer.handler for offer in offers(shell.home) if offer.make is not None}
    if missing := set(docs.needed_runtimes(page)) - there:
        pytest.skip(f"no runtime {', '.join(missing)} here")
    blocks = runnable(page)
    used = "\n".join(block.text for block in blocks if block.language != "yaml")
    for block in blocks:
        if block.language != "yaml":
            for command in block.commands():
                if starts_server(command):
                    shell.start_server(command)
                else:
                    shell.run(command)
            continue
        name = block.file_name
        if name and name in used:
            (shell.folder / name).write_text(block.text)
        else:
            dry_run(shell, block)


def dry_run(shell: Shell, block: docs.Block) -> None:
    """Whether a server with an agent "reader" takes the manifest."""
    path = shell.folder / "manifest.yaml"
    path.write_text(block.text)
    kinds = {manifest["kind"] for manifest in yaml.safe_load_all(block.text)}
    if kinds <= set(FLEET_KINDS):
        to = f"--kubeconfig {DATA}/operator.kubeconfig"
        shell.run(f"(cd ~ && kubectl {to} apply --dry-run=server -f work/manifest.yaml)")
    else:
        shell.run("walras agent show reader > /dev/null 2>&1 || walras agent create reader --income 1/h")
        shell.run("walras connect reader -- kubectl apply --dry-run=server -f manifest.yaml")


@pytest.mark.parametrize("path", ["prices", "cost", "ledger"])
def test_every_key_of_an_answer_below_walras_v1_is_documented(path: str, shared: Live) -> None:
    tables = docs.rows(
        docs.section(docs.DOCS / "reference" / "http.md", "Prices, cost, ledger, quotes and grants")
    )
    row = next(row for row in tables if row[0] == f"`{path}`")
    documented = set(re.findall(r"`([A-Za-z]+)`", " ".join(row[1:])))
    with shared.client(shared.operator) as client:
        answer = client.get(f"/clusters/fleet/walras/v1/{path}").raise_for_status().json()
    assert set(keys(answer)) <= documented


def keys(value: object) -> Iterator[str]:
    """Every key of a JSON value, at any depth."""
    if isinstance(value, dict):
        yield from value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(each)
