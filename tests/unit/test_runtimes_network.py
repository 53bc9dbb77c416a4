"""Real pods in real networks: what they reach, what they do not, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.hostile import listening
from support.networked import ACME, CLIENT, RIVAL, SERVER, Object, World, networked

from walras.kube.serve.ports import Wish
from walras.runtimes.base import PodRef
from walras.runtimes.network import entrance
from walras.runtimes.network import networks as networks_module
from walras.runtimes.network.networks import API_ADDRESS, Networks
from walras.runtimes.sandbox import Mode

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def test_pods_of_an_agent_reach_each_other_and_never_anothers(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        mine, theirs = await world.serving(ACME, "mine"), await world.serving(RIVAL, "theirs")
        assert mine == theirs, "the first pod of each has the same address"
        other = await world.serving(RIVAL, "other")
        assert await world.asks(ACME, f"{mine}:80") == [f"{mine}:80 = mine to 10.244.0.3"]
        (said,) = await world.asks(ACME, f"{other}:80")
        assert "mine" not in said and "other to" not in said and "!" in said

    networked(tmp_path, story)


def test_a_service_is_reached_by_its_address_and_by_its_names(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        pods = [await world.serving(ACME, name) for name in ("a", "b")]
        await world.service(ACME, "web", "10.0.7.7", *pods)
        names = ("10.0.7.7", "web", "web.default", "web.default.svc.cluster.local")
        said = await world.asks(ACME, *(f"{name}:8080" for name in names * 6))
        assert len(said) == 24 and all(" = a to " in line or " = b to " in line for line in said)
        assert {line.split(" = ")[1][0] for line in said} == {"a", "b"}, "both are used"
        (said_of_host,) = await world.asks(ACME, "web-1.web:80")
        assert " = b to " in said_of_host
        for line in await world.asks(RIVAL, "10.0.7.7:8080", "web:8080"):
            assert " ! " in line

    networked(tmp_path, story)


def test_a_client_stays_with_its_pod_where_the_service_says_so(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        pods = [await world.serving(ACME, name) for name in ("a", "b", "c")]
        await world.service(ACME, "web", "10.0.7.7", *pods, sessionAffinity="ClientIP")
        said = await world.asks(ACME, *["web:8080"] * 8)
        assert len({line.split(" = ")[1] for line in said}) == 1

    networked(tmp_path, story)


def test_a_pod_reaches_itself_by_its_service(tmp_path: Path) -> None:
    script = SERVER.replace(
        "while True:", "import threading\nthreading.Thread(target=lambda: run()).start()\nif 1:"
    )

    async def story(world: World) -> None:
        address = await world.serving(ACME, "a")
        await world.service(ACME, "self", "10.0.7.8", address)
        pod = world.api.get(ACME, "pods", "default", "a")
        argv = (sys.executable, "-c", CLIENT, "10.0.7.8:8080")
        session = await world.kubelet.access.exec(ACME, pod, "main", argv, Wish())
        assert b"= a to " in await session.read("stdout")
        await session.close()

    del script
    networked(tmp_path, story)


def test_a_service_whose_pods_change_follows_them(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        first, second = await world.serving(ACME, "a"), await world.serving(ACME, "b")
        await world.service(ACME, "web", "10.0.7.7", first)
        assert " = a to " in (await world.asks(ACME, "web:8080"))[0]

        def change(piece: Object) -> None:
            piece["endpoints"] = [{"addresses": [second], "conditions": {"ready": True}}]

        await world.api.edit(ACME, "endpointslices.discovery.k8s.io", "default", "web-1", change)
        await asyncio.sleep(0.2)
        assert " = b to " in (await world.asks(ACME, "web:8080"))[0]
        await world.api.delete(ACME, "services", "default", "web")
        await asyncio.sleep(0.2)
        assert " ! " in (await world.asks(ACME, "10.0.7.7:8080"))[0]

    networked(tmp_path, story)


def test_there_is_no_way_to_the_host_its_loopback_or_the_world(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        with listening() as (address, port):
            places = [
                f"{host}:{port}" for host in (address, "127.0.0.1", "169.254.1.1", "10.244.0.1", "10.0.0.1")
            ]
            said = await world.asks(ACME, *places, "169.254.169.254:80", "192.0.2.1:80", "example.org:80")
        assert len(said) == 8 and all(" ! " in line for line in said), said

    networked(tmp_path, story)


def test_a_pod_finds_its_address_names_and_services_in_its_environment(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.service(ACME, "my-db", "10.0.9.9")
        env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
        script = (
            "echo $IP $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT $MY_DB_SERVICE_HOST; "
            "cat /etc/hosts /etc/resolv.conf"
        )
        said = await world.says(
            ACME,
            "sh", "-c", script,
            container={"env": env}, hostname="box", hostAliases=[{"ip": "10.1.1.1", "hostnames": ["old"]}],
        )  # fmt: skip
        lines = said.splitlines()
        assert lines[0] == f"10.244.0.2 {API_ADDRESS}:443 10.0.9.9"
        assert "10.244.0.2\tbox" in lines and "10.1.1.1\told" in lines
        assert "search default.svc.cluster.local svc.cluster.local cluster.local" in lines
        assert "nameserver 10.244.0.1" in lines
        assert world.status(ACME, "client-1")["podIPs"] == [{"ip": "10.244.0.2"}]

    networked(tmp_path, story)


def test_nothing_of_a_network_is_left_when_its_pods_are_gone(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        def held() -> tuple[int, int]:
            """Descriptors of this process, and how many are of network namespaces."""
            found = []
            for each in os.listdir("/proc/self/fd"):
                with suppress(OSError):
                    found.append(os.readlink(f"/proc/self/fd/{each}"))
            return len(found), sum("net:" in each for each in found)

        await world.says(ACME, "true")
        await world.until(lambda: not world.networks.live)
        before = held()
        await asyncio.gather(*(world.serving(ACME, f"p{number}") for number in range(4)))
        await world.service(ACME, "web", "10.0.7.7", "10.244.0.2")
        assert (await world.asks(ACME, "web:8080"))[0]
        assert held()[1] > before[1]
        for number in range(4):
            await world.api.delete(ACME, "pods", "default", f"p{number}", grace_seconds=0)
        await world.until(lambda: not world.networks.live)
        await world.until(lambda: held()[0] <= before[0] and held()[1] <= before[1])

    networked(tmp_path, story)


def test_networks_that_come_and_go_at_once_stay_apart(tmp_path: Path) -> None:
    clusters, pods = [f"agent-{number}" for number in range(4)], 5

    async def churn(networks: Networks, cluster: str) -> None:
        for turn in range(3):
            refs = [PodRef(cluster, "base", f"{cluster}-{turn}-{number}", "p") for number in range(pods)]
            found = await asyncio.gather(*(networks.join(ref) for ref in refs), networks.refresh(cluster))
            addresses = {each.address for each in found[:-1] if each is not None}
            assert len(addresses) == pods, "each has an address, and all are in one network"
            # What is opened for a pod that goes is of that pod's network or of none.
            ways = [networks.socket_in(each, socket.AF_INET) for each in found[:-1] if each is not None]
            opened = asyncio.gather(*ways, return_exceptions=True)
            await asyncio.gather(*(networks.leave(ref) for ref in refs))
            for each in await opened:
                if isinstance(each, socket.socket):
                    each.close()
                else:
                    assert isinstance(each, OSError)

    async def run() -> None:
        networks = Networks()
        await networks.open()
        if not networks.available:
            pytest.skip(networks.missing)
        before = len(os.listdir("/proc/self/fd"))
        await asyncio.gather(*(churn(networks, cluster) for cluster in clusters))
        assert not networks.live
        assert len(os.listdir("/proc/self/fd")) <= before
        await networks.close()

    asyncio.run(run())


def test_a_network_that_is_gone_is_not_anothers(tmp_path: Path) -> None:
    async def run() -> None:
        networks = Networks()
        await networks.open()
        if not networks.available:
            pytest.skip(networks.missing)
        mine = await networks.join(PodRef(ACME, "base", "mine", "p"))
        assert mine is not None
        await networks.leave(PodRef(ACME, "base", "mine", "p"))
        theirs = await networks.join(PodRef(RIVAL, "base", "theirs", "p"))
        assert theirs is not None
        with pytest.raises(OSError, match="gone"):
            await networks.socket_in(mine, socket.AF_INET)
        await networks.close()

    asyncio.run(run())


CRASH = """
import asyncio, sys
sys.path[:] = {path!r}
from pathlib import Path
from walras.runtimes.base import ContainerSpec, Limits, PodRef
from walras.runtimes.network.networks import Networks
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.shares import Shares

async def main():
    networks = Networks()
    runtime = ProcessRuntime(Path({data!r}), shares=Shares(Path({data!r}), networks=networks))
    await runtime.open()
    pod = PodRef("acme", "base", "u", "p")
    await networks.join(pod)
    spec = ContainerSpec(pod, "main", 0, ("sleep", "4714"), {{"PATH": "/usr/bin:/bin"}})
    await runtime.start(spec, lambda stream, data: None, Limits())
    print("up", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_nothing_of_a_network_is_left_when_the_server_is_killed(tmp_path: Path) -> None:
    def spaces() -> set[str]:
        found = set()
        for each in Path("/proc").glob("[0-9]*/ns/net"):
            try:
                found.add(os.readlink(each))
            except OSError:
                continue
        return found

    before = spaces()
    code = CRASH.format(path=sys.path, data=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            # Lines of the log come before.
            for line in server.stdout:
                if line == b"up\n":
                    break
            assert len(spaces() - before) == 1
        finally:
            server.kill()
    for _ in range(200):
        if not spaces() - before:
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert not spaces() - before


@pytest.mark.parametrize("mode", ["root", "user"])
def test_services_work_in_either_sandbox(tmp_path: Path, mode: Mode) -> None:
    if mode == "root" and os.geteuid() != 0:
        pytest.skip("needs root")

    async def story(world: World) -> None:
        address = await world.serving(ACME, "a")
        await world.service(ACME, "web", "10.0.7.7", address)
        assert " = a to " in (await world.asks(ACME, "web:8080"))[0]

    networked(tmp_path, story, mode=mode)


def test_queries_that_are_none_are_answered_as_such(tmp_path: Path) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); "
        "s.connect(('10.244.0.1', 53)); [s.send(bytes([n]) * n) for n in range(1, 100)]; "
        "s.send(bytes(12) + b'x' * 50); print(s.recv(600)[3] & 15); "
        "print(socket.getaddrinfo('kubernetes.default', 443)[0][4])"
    )

    async def story(world: World) -> None:
        said = await world.says(ACME, sys.executable, "-c", script)
        assert said.splitlines() == ["1", "('10.0.0.1', 443)"]

    networked(tmp_path, story)


def test_an_answer_of_the_helper_is_waited_for_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The next to ask would take it for its own otherwise.
    waits_s: list[float | None] = []
    real = entrance.receive

    def receive(from_: socket.socket) -> tuple[Any, list[int]]:
        waits_s.append(from_.gettimeout())
        return real(from_)

    async def run(helper: entrance.Helper) -> None:
        for _ in range(2):
            os.close(await helper.do("make_agent", (), ["10.244.0.1"]))

    monkeypatch.setattr(entrance, "receive", receive)
    try:
        helper = entrance.Helper()
    except OSError as error:
        pytest.skip(str(error))
    try:
        asyncio.run(run(helper))
    finally:
        helper.close()
    assert waits_s[0] is not None and waits_s[1:] == [None, None]


def test_descriptors_that_are_handed_over_are_inherited_by_no_program() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        entrance.send(theirs, ("said", 1), (ours.fileno(), theirs.fileno()))
        said, found = entrance.receive(ours)
    assert said == ("said", 1) and len(found) == 2
    assert not any(map(os.get_inheritable, found))
    for each in found:
        os.close(each)


def test_nothing_is_carried_on_of_an_agent_whose_last_pod_has_left() -> None:
    """Even where a pod took nothing of what it was answered, and does not say that it is gone."""

    async def run() -> None:
        agent = networks_module._Agent("acme", os.open("/dev/null", os.O_RDONLY))
        full, over = asyncio.Event(), asyncio.Event()

        async def serve(_: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bytes(64 << 20))
            full.set()
            try:
                while await reader.read(1):
                    pass
            except ConnectionError:
                pass
            over.set()

        server = await asyncio.start_server(networks_module._caller(agent, serve), "127.0.0.1", 0)
        agent.servers.append(server)
        with socket.create_connection(server.sockets[0].getsockname()):
            await full.wait()
            agent.close()
            async with asyncio.timeout(5):
                await over.wait()

    asyncio.run(run())
