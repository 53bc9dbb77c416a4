from __future__ import annotations

from typing import Any

import pytest

from walras.runtimes.backoff import Backoff, Restart, restart_of
from walras.runtimes.records import Record, records
from walras.runtimes.status import Verdict, phase, pod_status, qos_class

NOW_MS = 1_700_000_000_000
WAITING: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}
RUNNING: dict[str, Any] = {"running": {"startedAt": "2023-11-14T22:13:20Z"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code}}


def record(
    state: dict[str, Any],
    last: dict[str, Any] | None = None,
    *,
    init: bool = False,
    sidecar: bool = False,
    policy: str = "Always",
    started: bool = True,
) -> Record:
    restart = Restart(policy)
    return Record("c", "img", init, state, last or {}, sidecar=sidecar, restart=restart, started=started)


@pytest.mark.parametrize(
    ("policy", "states", "expected"),
    [
        ("Always", [WAITING], "Pending"),
        ("Always", [RUNNING, WAITING], "Pending"),
        ("Always", [RUNNING, RUNNING], "Running"),
        ("Always", [ended(0)], "Running"),
        ("OnFailure", [ended(0), RUNNING], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(1)], "Running"),
        ("Never", [ended(0), ended(0)], "Succeeded"),
        ("Never", [ended(0), ended(1)], "Failed"),
        ("Never", [RUNNING, ended(1)], "Running"),
    ],
)
def test_the_phase_follows_from_containers_as_in_kubelet(
    policy: str, states: list[dict[str, Any]], expected: str
) -> None:
    assert phase([], [record(state, policy=policy) for state in states]) == expected


def test_a_container_that_waits_to_run_again_counts_as_running() -> None:
    assert phase([], [record(WAITING, ended(1), policy="OnFailure")]) == "Running"


@pytest.mark.parametrize(
    ("policy", "init", "expected"),
    [("Always", RUNNING, "Pending"), ("Never", ended(1), "Failed"), ("OnFailure", ended(1), "Pending")],
)
def test_init_containers_come_first(policy: str, init: dict[str, Any], expected: str) -> None:
    assert phase([record(init, init=True, policy=policy)], [record(WAITING)]) == expected


def pod(**status: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "img"}
    return {"metadata": {"name": "p"}, "spec": {"containers": [container]}, "status": status}


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["lastTransitionTime"]) for each in status["conditions"]}


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = pod_status(pod(), [], [record(RUNNING)], now_ms=NOW_MS)
    later = pod_status(pod(**first), [], [record(ended(1))], now_ms=NOW_MS + 5000)
    assert conditions(first)["Ready"] == ("True", "2023-11-14T22:13:20Z")
    assert conditions(later)["Ready"] == ("False", "2023-11-14T22:13:25Z")
    assert conditions(later)["Initialized"] == ("True", "2023-11-14T22:13:20Z")
    assert later["startTime"] == first["startTime"]


def test_a_status_says_of_which_generation_of_the_spec_it_is() -> None:
    theirs = {"type": "DisruptionTarget", "status": "True"}
    status = pod_status(pod(conditions=[theirs]), [], [record(RUNNING)], now_ms=NOW_MS, observed=3)
    assert status["observedGeneration"] == 3
    said = {each["type"]: each.get("observedGeneration") for each in status["conditions"]}
    assert said.pop("DisruptionTarget") is None and set(said.values()) == {3}


def test_conditions_of_others_stay() -> None:
    theirs = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByWalras"}
    status = pod_status(pod(conditions=[theirs]), [], [record(RUNNING)], now_ms=NOW_MS, disrupted="restart")
    assert [each for each in status["conditions"] if each["type"] == "DisruptionTarget"] == [theirs]


def test_a_verdict_overrules_the_containers() -> None:
    verdict = Verdict("Failed", "DeadlineExceeded", "too long")
    status = pod_status(pod(), [], [record(RUNNING)], now_ms=NOW_MS, verdict=verdict)
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert conditions(status)["Ready"][0] == "False"


def test_a_records_life_survives_in_the_status() -> None:
    first = Record("c", "img")
    first.run("process://abc", NOW_MS)
    first.end(3, NOW_MS + 2000)
    first.wait("CrashLoopBackOff", "back-off 10s")
    first.restarts = 1
    status = pod_status(pod(), [], [first], now_ms=NOW_MS)
    _, (again,), _ = records(pod(**status))
    assert again.status() == first.status()
    assert again.last["terminated"] == {
        "exitCode": 3,
        "reason": "Error",
        "startedAt": "2023-11-14T22:13:20Z",
        "finishedAt": "2023-11-14T22:13:22Z",
        "containerID": "process://abc",
    }


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"nvidia.com/gpu": "1"}}, "BestEffort"),
    ],
)
def test_the_quality_of_service_class(resources: dict[str, Any], expected: str) -> None:
    assert qos_class({"containers": [{"name": "c", "resources": resources}]}) == expected


def test_ten_quiet_minutes_forgive_a_crash() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(1000) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.delay_s(600_000) == 0
    assert backoff.delay_s(1000) == 10


def test_a_containers_own_rules_go_before_its_policy_and_that_before_the_pods() -> None:
    assert restart_of({}, "OnFailure") == Restart("OnFailure")
    assert restart_of({"restartPolicy": "Never"}, "Always").again(1) is False
    codes = {"operator": "In", "values": [42]}
    rules = [{"action": "Restart", "exitCodes": codes}]
    ruled = restart_of({"restartPolicy": "Never", "restartPolicyRules": rules}, "Never")
    assert [ruled.again(code) for code in (42, 1, 0)] == [True, False, False]
    rules = [{"action": "Restart", "exitCodes": {**codes, "operator": "NotIn"}}]
    ruled = restart_of({"restartPolicy": "Never", "restartPolicyRules": rules}, "Never")
    assert [ruled.again(code) for code in (42, 1, 0)] == [False, True, True]


@pytest.mark.parametrize(
    ("sidecar", "main", "expected"),
    [
        (record(WAITING, sidecar=True), record(WAITING), "Pending"),
        (record(RUNNING, sidecar=True, started=False), record(WAITING), "Pending"),
        (record(RUNNING, sidecar=True), record(RUNNING), "Running"),
        (record(WAITING, ended(1), sidecar=True), record(RUNNING), "Running"),
        (record(RUNNING, sidecar=True), record(ended(0), policy="Never"), "Running"),
        (record(ended(137), sidecar=True), record(ended(0), policy="Never"), "Succeeded"),
    ],
)
def test_a_pod_is_over_with_its_main_containers_once_its_sidecars_have_gone(
    sidecar: Record, main: Record, expected: str
) -> None:
    assert phase([sidecar], [main]) == expected


def test_readiness_gates_are_waited_for_in_the_words_of_kubelet() -> None:
    gated = pod(conditions=[{"type": "b", "status": "False"}, {"type": "c", "status": "True"}])
    gated["spec"]["readinessGates"] = [{"conditionType": name} for name in "abc"]
    status = pod_status(gated, [], [record(RUNNING)], now_ms=NOW_MS)
    found = {each["type"]: each for each in status["conditions"]}
    assert found["ContainersReady"]["status"] == "True"
    assert found["Ready"]["status"] == "False"
    assert found["Ready"]["reason"] == "ReadinessGatesNotReady"
    assert found["Ready"]["message"] == (
        'corresponding condition of pod readiness gate "a" does not exist., '
        'the status of pod readiness gate "b" is not "True", but False'
    )
