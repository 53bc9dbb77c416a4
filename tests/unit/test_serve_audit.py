"""The audit log: who asked for what, in whose name, and what came of it."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from support.access import Place, robot, tell

from walras.kube.serve import auditlog
from walras.kube.serve.audit import AGENT_MAX, URI_MAX
from walras.kube.serve.auditlog import AuditLog

MAPS = "/api/v1/namespaces/default/configmaps"


def told(path: Path, story: Any) -> list[dict[str, Any]]:
    """The events that a story leaves."""
    log = AuditLog(path)

    tell(story, audit=log)
    log.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_says_who_did_what_when_and_how_it_went(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.must("one", "POST", MAPS, {"metadata": {"name": "x"}})
        place.clock.advance(1_234)
        await place.ask("one", "GET", f"{MAPS}/none?a=b")

    made, missing = told(tmp_path / "audit.log", story)
    assert made == {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": made["auditID"],
        "stage": "ResponseComplete",
        "requestURI": f"/clusters/one{MAPS}",
        "verb": "create",
        "objectRef": {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"},
        "user": {"username": "walras:agent:one", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["127.0.0.1"],
        "userAgent": made["userAgent"],
        "responseStatus": {"metadata": {}, "code": 201},
        "requestReceivedTimestamp": "2023-11-14T22:13:20.000000Z",
        "stageTimestamp": "2023-11-14T22:13:20.000000Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    }
    assert made["userAgent"].startswith("python-httpx")
    assert missing["requestURI"].endswith("/none?a=b") and missing["verb"] == "get"
    assert missing["objectRef"]["name"] == "none" and missing["auditID"] != made["auditID"]
    assert missing["requestReceivedTimestamp"] == "2023-11-14T22:13:21.234000Z"
    assert missing["responseStatus"] == {
        "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
        "message": 'configmaps "none" not found',
    }  # fmt: skip


def test_who_asks_in_anothers_name_is_named_too(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.ask("one", "GET", MAPS, headers=[("Impersonate-User", "alice")])

    (event,) = told(tmp_path / "audit.log", story)
    assert event["user"]["username"] == "walras:agent:one"
    assert event["impersonatedUser"] == {"username": "alice", "groups": ["system:authenticated"]}
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert event["responseStatus"]["code"] == 403


def test_what_allowed_an_account_is_said(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.account()
        await place.bind("view", robot(), namespace="default")
        assert await place.get(await place.token(), MAPS) == 200

    event = told(tmp_path / "audit.log", story)[-1]
    assert event["annotations"]["authorization.k8s.io/reason"].startswith(
        'RBAC: allowed by RoleBinding "view/default" of ClusterRole "view" to ServiceAccount "robot/default"'
    )
    assert event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0].startswith("JTI=")


def test_no_token_and_no_body_is_ever_in_the_log(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.account()
        await place.token()
        await place.must("one", "POST", "/api/v1/namespaces/default/secrets",
                         {"metadata": {"name": "s"}, "stringData": {"k": "hunter2"}})  # fmt: skip
        await place.ask("no-such-token", "GET", MAPS)

    path = tmp_path / "audit.log"
    events = told(path, story)
    text = path.read_text()
    assert "hunter2" not in text and "no-such-token" not in text and "eyJ" not in text
    assert events[-1]["user"] == {"username": "system:anonymous", "groups": ["system:unauthenticated"]}
    assert events[-1]["responseStatus"]["code"] == 401
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_watch_is_noted_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.ask("one", "GET", f"{MAPS}?watch=1&timeoutSeconds=1")

    began, ended = told(tmp_path / "audit.log", story)
    assert [began["stage"], ended["stage"]] == ["ResponseStarted", "ResponseComplete"]
    assert began["auditID"] == ended["auditID"] and began["verb"] == "watch"


def test_what_a_caller_writes_cannot_break_a_line_or_fill_the_disk(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        agent = [("user-agent", "x" * 5_000 + '","user":"root')]
        await place.ask("one", "GET", f"{MAPS}?a=" + "b" * 20_000, headers=agent)
        await place.ask("one", "GET", "/api/v1/namespaces/%0A%22%7D/pods")

    long, odd = told(tmp_path / "audit.log", story)
    assert len(long["requestURI"]) == URI_MAX and len(long["userAgent"]) == AGENT_MAX
    assert odd["objectRef"]["namespace"] == '\n"}'


def test_the_log_is_rotated_and_so_many_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, file_bytes=500, kept=3)
    for number in range(100):
        log.record({"number": number, "fill": "x" * 80})
    log.close()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]
    assert all(each.stat().st_size <= 500 for each in tmp_path.iterdir())
    lines = [
        json.loads(line) for name in reversed(names) for line in (tmp_path / name).read_text().splitlines()
    ]
    numbers = [line["number"] for line in lines]
    assert numbers == list(range(numbers[0], 100)) and log.lost == 0


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for number in range(2):
        log = AuditLog(path)
        log.record({"number": number})
        log.close()
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1]


def test_lines_that_the_disk_is_too_slow_for_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditlog, "WAITING_MAX", 10)
    monkeypatch.setattr(AuditLog, "_write", lambda self: None)
    log = AuditLog(tmp_path / "audit.log")
    for number in range(25):
        log.record({"number": number})
    assert log.lost == 15


def test_every_request_has_an_id_of_its_own(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await asyncio.gather(*(place.ask("one", "GET", MAPS) for _ in range(20)))

    events = told(tmp_path / "audit.log", story)
    assert len({event["auditID"] for event in events}) == 20
