"""Probes, hooks and sidecars as kubelet keeps them, in virtual time."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest
from support.kubelet import ACME, Object, World, in_world

from walras.runtimes.fake import FakeProcess, FakeRuntime, Server
from walras.runtimes.services import PROBES_MAX
from walras.runtimes.tempering import BURST, REFILL_MS

PERIOD_S = 7
TIMEOUT_S = 3


def probe(**more: Any) -> Object:
    what = {} if more.keys() & {"httpGet", "tcpSocket", "grpc"} else {"exec": {"command": ["check"]}}
    return {"periodSeconds": PERIOD_S, "timeoutSeconds": TIMEOUT_S, **what, **more}


class Answers:
    """What programs that enter end with, by their first word; 0 unless it is said."""

    def __init__(self, **codes: int | None) -> None:
        self.codes = codes

    def __call__(self, _process: FakeProcess, argv: tuple[str, ...]) -> int | None:
        return self.codes.get(argv[0], 0)

    @property
    def runtime(self) -> FakeRuntime:
        return FakeRuntime(answer=self)


def http(*answers: bytes) -> Server:
    """A server that gives these answers one after the other, the last for ever."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return serve


def test_a_container_is_ready_when_its_readiness_probe_has_succeeded_as_often_as_it_takes(
    tmp_path: Path,
) -> None:
    answers = Answers(check=1)

    async def story(world: World) -> None:
        ready = probe(initialDelaySeconds=5, successThreshold=2, failureThreshold=2)
        await world.pod("p", container={"readinessProbe": ready})
        await world.phase("p", "Running")
        assert world.container("p")["started"] is True
        assert world.container("p")["ready"] is False
        assert world.condition("p", "Ready") == "False"
        await world.passes(5)
        await world.until(lambda: world.events.of("Unhealthy"))
        answers.codes["check"] = 0
        await world.passes(PERIOD_S)
        await world.until(lambda: PERIOD_S in world.timers.pending())
        assert world.container("p")["ready"] is False
        await world.passes(PERIOD_S)
        await world.until(lambda: world.condition("p", "Ready") == "True")
        assert world.condition("p", "ContainersReady") == "True"
        answers.codes["check"] = 1
        await world.passes(PERIOD_S)
        await world.passes(PERIOD_S)
        await world.until(lambda: world.condition("p", "Ready") == "False")
        assert world.runtime.processes[0].alive

    in_world(tmp_path, story, answers.runtime)


def test_a_container_whose_liveness_probe_fails_is_restarted(tmp_path: Path) -> None:
    answers = Answers(check=1)

    async def story(world: World) -> None:
        await world.pod("p", restartPolicy="Always", container={"livenessProbe": probe(failureThreshold=2)})
        await world.passes(0)
        await world.until(lambda: world.events.of("Unhealthy"))
        assert world.runtime.processes[0].alive
        await world.passes(PERIOD_S)
        await world.until(lambda: world.container("p").get("restartCount") == 1)
        assert world.events.of("Unhealthy") == ["Liveness probe failed: "] * 2
        assert world.events.of("Killing") == ["Container main failed liveness probe, will be restarted"]
        assert world.runtime.processes[0].signals == [15]
        assert world.container("p")["lastState"]["terminated"]["exitCode"] == 143

    in_world(tmp_path, story, answers.runtime)


def test_a_probe_may_have_a_grace_period_of_its_own(tmp_path: Path) -> None:
    answers = Answers(check=1)

    async def story(world: World) -> None:
        live = probe(failureThreshold=1, terminationGracePeriodSeconds=11)
        await world.pod("p", restartPolicy="Always", container={"livenessProbe": live})
        await world.passes(0)
        await world.until(lambda: world.runtime.processes[0].signals == [15])
        await world.until(lambda: any(10 < each <= 11 for each in world.timers.pending()))
        world.timers.fire()
        await world.until(lambda: world.runtime.processes[0].signals == [15, 9])

    in_world(tmp_path, story, FakeRuntime(stubborn=True, answer=answers))


def test_other_probes_wait_for_the_startup_probe(tmp_path: Path) -> None:
    answers = Answers(up=1)

    async def story(world: World) -> None:
        startup = {**probe(), "exec": {"command": ["up"]}, "failureThreshold": 3}
        await world.pod(
            "p", container={"startupProbe": startup, "livenessProbe": probe(), "readinessProbe": probe()}
        )
        await world.phase("p", "Running")
        assert (world.container("p")["started"], world.container("p")["ready"]) == (False, False)
        await world.passes(0)
        await world.until(lambda: world.events.of("Unhealthy"))
        assert world.runtime.processes[0].entered == [("up",)]
        answers.codes["up"] = 0
        await world.passes(PERIOD_S)
        await world.until(lambda: world.container("p")["started"])
        await world.passes(0)
        await world.until(lambda: world.container("p")["ready"])
        assert world.runtime.processes[0].entered[1:] == [("up",), ("check",), ("check",)]

    in_world(tmp_path, story, answers.runtime)


def test_a_container_that_does_not_start_up_in_time_is_ended(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"startupProbe": probe(failureThreshold=1)})
        await world.passes(0)
        await world.phase("p", "Failed")
        assert world.events.of("Killing") == ["Container main failed startup probe"]

    in_world(tmp_path, story, Answers(check=1).runtime)


def test_a_probe_that_does_not_end_has_failed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"readinessProbe": probe()})
        await world.passes(0)
        await world.passes(TIMEOUT_S)
        await world.until(lambda: world.events.of("Unhealthy"))
        assert world.events.of("Unhealthy") == [
            'Readiness probe failed: command timed out: "check" timed out after 3s'
        ]

    in_world(tmp_path, story, Answers(check=None).runtime)


def test_an_agents_probes_run_so_many_programs_at_a_time(tmp_path: Path) -> None:
    answers = Answers(check=None)

    async def story(world: World) -> None:
        def entered() -> int:
            return sum(len(each.entered) for each in world.runtime.processes)

        for number in range(PROBES_MAX + 3):
            await world.pod(f"p{number}", container={"readinessProbe": probe()})
        await world.started(PROBES_MAX + 3)
        while entered() < PROBES_MAX:
            await world.passes(0)
        for _ in range(50):
            world.timers.fire(0)
            await asyncio.sleep(0)
        assert entered() == PROBES_MAX
        world.timers.fire(TIMEOUT_S)
        await world.until(lambda: entered() == PROBES_MAX + 3)

    in_world(tmp_path, story, answers.runtime)


OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "ready", "said"),
    [
        ([OK], True, []),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], True, []),
        ([b"HTTP/1.1 500 No\r\n\r\n"], False, ["HTTP probe failed with statuscode: 500"]),
        ([b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n", OK], True, []),
        ([b"HTTP/1.1 302 Found\r\nLocation: /round\r\n\r\n"], False, ["stopped after 10 redirects"]),
        ([b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n"], False, ["parse Location header"]),
        ([b"HTTP/1.1 302 Found\r\nLocation: //127.0.0.1:x/\r\n\r\n"], False, ["parse Location header"]),
        ([b"SSH-2.0-server\r\n\r\n"], False, ["malformed HTTP response"]),
        ([b"HTTP/1.1 200 " + b"x" * 100_000], False, ["Get "]),
    ],
)
def test_a_get_is_judged_by_its_status(
    tmp_path: Path, answers: list[bytes], ready: bool, said: list[str]
) -> None:
    async def story(world: World) -> None:
        world.runtime.ports[8080] = http(*answers)
        get = {"path": "/healthz?full=1", "port": "web", "httpHeaders": [{"name": "X-A", "value": "b"}]}
        ports = [{"name": "web", "containerPort": 8080}]
        await world.pod("p", container={"readinessProbe": probe(httpGet=get), "ports": ports})
        await world.passes(0)
        await world.until(
            lambda: world.container("p").get("ready") == ready and PERIOD_S in world.timers.pending()
        )
        found = world.events.of("Unhealthy")
        assert len(found) == len(said)
        assert all(part in message for part, message in zip(said, found, strict=True))

    in_world(tmp_path, story)


def test_a_redirect_away_from_the_pod_is_not_followed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        away = b"HTTP/1.1 301 Moved\r\nLocation: http://169.254.169.254/\r\nContent-Length: 4\r\n\r\naway"
        world.runtime.ports[80] = http(away)
        await world.pod("p", container={"readinessProbe": probe(httpGet={"port": 80})})
        await world.passes(0)
        await world.until(lambda: world.container("p").get("ready"))
        assert world.events.of("ProbeWarning") == [
            "Readiness probe warning: Probe terminated redirects, Response body: away"
        ]

    in_world(tmp_path, story)


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "example.org"])
def test_the_server_asks_no_other_host_for_a_pod(tmp_path: Path, host: str) -> None:
    async def story(world: World) -> None:
        world.runtime.ports[80] = http(OK)
        await world.pod("p", container={"readinessProbe": probe(httpGet={"port": 80, "host": host})})
        await world.passes(0)
        await world.until(lambda: world.events.of("Unhealthy"))
        (said,) = world.events.of("Unhealthy")
        assert said.startswith(f'Readiness probe errored and resulted in unknown state: host "{host}" is not')

    in_world(tmp_path, story)


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1", "::1", "[::1]"])
def test_the_pod_is_asked_by_any_name_of_its_own(tmp_path: Path, host: str) -> None:
    async def story(world: World) -> None:
        world.runtime.ports[80] = http(OK)
        await world.pod("p", container={"readinessProbe": probe(httpGet={"port": 80, "host": host})})
        await world.passes(0)
        await world.until(lambda: world.container("p").get("ready"))

    in_world(tmp_path, story)


def test_a_port_that_takes_connections_is_enough_for_a_tcp_probe(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"readinessProbe": probe(tcpSocket={"port": 5432})})
        await world.passes(0)
        await world.until(lambda: world.events.of("Unhealthy"))
        assert "does not answer on port 5432" in world.events.of("Unhealthy")[0]
        world.runtime.ports[5432] = http(b"")
        await world.passes(PERIOD_S)
        await world.until(lambda: world.container("p").get("ready"))

    in_world(tmp_path, story)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def grpc(state: bytes) -> Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        asked = b""
        while b"/grpc.health.v1.Health/Check" not in asked or b"cache" not in asked:
            asked += await reader.read(1000)
        message = struct.pack(">BI", 0, len(state)) + state
        writer.write(frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, message))
        await reader.read()

    return serve


@pytest.mark.parametrize(
    ("state", "said"),
    [(b"\x08\x01", ""), (b"\x08\x02", 'service unhealthy (responded with "NOT_SERVING")')],
)
def test_a_grpc_service_says_itself_whether_it_serves(tmp_path: Path, state: bytes, said: str) -> None:
    async def story(world: World) -> None:
        world.runtime.ports[9000] = grpc(state)
        await world.pod("p", container={"readinessProbe": probe(grpc={"port": 9000, "service": "cache"})})
        await world.passes(0)
        await world.until(lambda: PERIOD_S in world.timers.pending())
        await world.until(lambda: world.container("p").get("ready") is not bool(said))
        assert world.events.of("Unhealthy") == ([f"Readiness probe failed: {said}"] if said else [])

    in_world(tmp_path, story)


def test_a_probe_that_fails_without_end_does_not_fill_the_cluster_with_events(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"readinessProbe": probe()})
        await world.passes(0)
        for _ in range(2 * BURST):
            await world.passes(PERIOD_S)
        assert len(world.events.said) == BURST
        world.clock.at_ms += 2 * REFILL_MS
        for _ in range(4):
            await world.passes(PERIOD_S)
        await world.until(lambda: len(world.events.said) == BURST + 2)

    in_world(tmp_path, story, Answers(check=1).runtime)


def test_a_pod_counts_as_running_when_its_post_start_hook_is_done(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"lifecycle": {"postStart": {"sleep": {"seconds": 4}}}})
        await world.started(1)
        await world.until(lambda: 4 in world.timers.pending())
        assert world.status("p").get("phase") in (None, "Pending")
        await world.passes(4)
        await world.phase("p", "Running")

    in_world(tmp_path, story)


def test_a_container_whose_post_start_hook_fails_is_ended(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"lifecycle": {"postStart": {"exec": {"command": ["greet"]}}}})
        await world.phase("p", "Failed")
        assert world.events.of("FailedPostStartHook") == ["PostStartHook failed"]
        assert world.events.of("Killing") == ["FailedPostStartHook"]

    in_world(tmp_path, story, Answers(greet=1).runtime)


def test_containers_start_in_order_each_after_the_post_start_hook_of_the_one_before(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        proxy = {"name": "proxy", "image": "i", "command": ["proxy"]}
        proxy["lifecycle"] = {"postStart": {"sleep": {"seconds": 4}}}  # type: ignore[assignment]
        app = {"name": "app", "image": "i", "command": ["app"]}
        await world.pod("p", containers=[proxy, app])
        await world.until(lambda: 4 in world.timers.pending())
        assert [each.spec.name for each in world.runtime.processes] == ["proxy"]
        await world.passes(4)
        await world.started(2)

    in_world(tmp_path, story)


def test_the_pre_stop_hook_comes_before_the_signal(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        hook = {"preStop": {"sleep": {"seconds": 4}}}
        await world.pod("p", terminationGracePeriodSeconds=20, container={"lifecycle": hook})
        await world.phase("p", "Running")
        await world.api.delete(ACME, "pods", "default", "p")
        await world.until(lambda: 4 in world.timers.pending())
        assert world.runtime.processes[0].signals == []
        await world.passes(4)
        await world.until(lambda: world.gone("p"))
        assert world.runtime.processes[0].signals == [15]

    in_world(tmp_path, story)


def test_a_pre_stop_hook_that_takes_all_the_grace_leaves_two_seconds(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        hook = {"preStop": {"exec": {"command": ["forever"]}}}
        await world.pod("p", terminationGracePeriodSeconds=20, container={"lifecycle": hook})
        await world.phase("p", "Running")
        await world.api.delete(ACME, "pods", "default", "p")
        await world.until(lambda: any(19 < each <= 20 for each in world.timers.pending()))
        assert world.runtime.processes[0].signals == []
        world.timers.fire()
        await world.until(lambda: world.runtime.processes[0].signals == [15])
        await world.passes(2)
        await world.until(lambda: world.gone("p"))
        assert world.runtime.processes[0].signals == [15, 9]

    in_world(tmp_path, story, FakeRuntime(stubborn=True, answer=Answers(forever=None)))


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def sidecar(name: str, **more: Any) -> Object:
    return {"name": name, "image": "i", "command": [name], "restartPolicy": "Always", **more}


def test_sidecars_start_in_order_and_end_in_reverse_after_the_main_containers(tmp_path: Path) -> None:
    answers = Answers(check=1)

    async def story(world: World) -> None:
        inits = [sidecar("logs", startupProbe=probe(failureThreshold=9)), sidecar("proxy")]
        await world.pod("p", initContainers=inits)
        await world.started(1)
        await world.passes(0)
        await world.until(lambda: world.events.of("Unhealthy"))
        await world.phase("p", "Pending")
        answers.codes["check"] = 0
        await world.passes(PERIOD_S)
        await world.phase("p", "Running")
        logs, proxy, main = world.runtime.processes
        assert [each.spec.name for each in (logs, proxy, main)] == ["logs", "proxy", "main"]
        assert world.condition("p", "Initialized") == "True"
        main.exit(0)
        await world.until(lambda: proxy.signals == [15])
        assert logs.signals == [] and world.status("p")["phase"] == "Running"
        proxy.exit(0)
        await world.until(lambda: logs.signals == [15])
        logs.exit(143)
        await world.phase("p", "Succeeded")

    in_world(tmp_path, story, FakeRuntime(stubborn=True, answer=answers))


def test_a_sidecar_that_ends_is_started_again_in_a_pod_that_never_restarts(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", initContainers=[sidecar("proxy")])
        await world.phase("p", "Running")
        world.runtime.processes[0].exit(0)
        await world.started(3)
        assert world.runtime.processes[2].spec.name == "proxy"
        world.runtime.processes[1].exit(1)
        await world.phase("p", "Failed")
        assert not world.runtime.processes[2].alive

    in_world(tmp_path, story)


def test_an_ephemeral_container_runs_once_beside_the_others_and_goes_with_them(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p")
        await world.phase("p", "Running")

        def debug(pod: Object) -> None:
            container = {"name": "debugger", "image": "i", "command": ["look"]}
            pod["spec"]["ephemeralContainers"] = [container]

        await world.api.edit(ACME, "pods", "default", "p", debug)
        await world.until(lambda: world.status("p").get("ephemeralContainerStatuses"))
        await world.until(lambda: "running" in world.status("p")["ephemeralContainerStatuses"][0]["state"])
        world.runtime.processes[0].exit(0)
        await world.phase("p", "Succeeded")
        assert world.runtime.processes[1].signals == [15]
        assert len(world.runtime.processes) == 2

    in_world(tmp_path, story)


def test_a_readiness_gate_is_followed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", readinessGates=[{"conditionType": "example.org/in-pool"}])
        await world.phase("p", "Running")
        assert world.condition("p", "Ready") == "False"
        assert world.condition("p", "ContainersReady") == "True"

        def admit(pod: Object) -> None:
            pod["status"]["conditions"].append({"type": "example.org/in-pool", "status": "True"})

        await world.api.edit(ACME, "pods", "default", "p", admit)
        await world.until(lambda: world.condition("p", "Ready") == "True")

    in_world(tmp_path, story)


def test_the_termination_message_is_the_files_or_the_end_of_the_log(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        policy = {"terminationMessagePath": "/dev/termination-log"}
        fallback = {**policy, "terminationMessagePolicy": "FallbackToLogsOnError"}
        await world.pod("says", container=policy)
        await world.started(1)
        (mount,) = world.runtime.processes[0].spec.mounts
        assert mount.target == "/dev/termination-log"
        _write(mount.source, "x" * 5000 + "because")
        world.runtime.processes[0].exit(1)
        await world.phase("says", "Failed")
        message = world.container("says")["state"]["terminated"]["message"]
        assert len(message) == 4096 and message.endswith("because")
        await world.pod("logs", container=fallback)
        await world.started(2)
        world.runtime.processes[1].output("stdout", b"first\nno such file")
        world.runtime.processes[1].exit(1)
        await world.phase("logs", "Failed")
        assert world.container("logs")["state"]["terminated"]["message"] == "first\nno such file"

    in_world(tmp_path, story)
