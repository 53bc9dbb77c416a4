"""Volumes that follow what they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.kubelet import ACME, World, in_world

from walras.runtimes.environment import EnvSource
from walras.runtimes.refreshing import followed, refresh
from walras.runtimes.volumes import Places, prepare

Object = dict[str, Any]
TOKEN = {"serviceAccountToken": {"path": "token"}}
AUTHORITY = {"configMap": {"name": "kube-root-ca.crt"}}
LABELS = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
NAME = {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}


class Machine:
    """One pod with one volume, and the objects that it is made from."""

    def __init__(self, folder: Path, **volume: Any) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.pod: Object = {
            "metadata": {"name": "p", "namespace": "default", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"volumes": [{"name": "v", **volume}], "containers": [{"name": "c"}]},
        }
        self.places = Places(folder, lambda _: -1)
        self.issued = 0

    def _lookup(self, resource: str, name: str) -> Mapping[str, Any] | None:
        return self.objects.get((resource, name))

    def _token(self, audience: str, lifetime_s: int) -> str:
        self.issued += 1
        return f"token {self.issued}"

    def _source(self) -> EnvSource:
        return EnvSource(self.pod, {"metadata": {}}, self._lookup, self._token)

    def prepare(self) -> Path:
        return prepare(self.places, "acme", self._source())["v"].path

    def refresh(self) -> dict[str, bytes]:
        refresh(self.places, "acme", self._source())
        path = self.places.pod("acme", "u1") / "volumes" / "v"
        found = (each for each in path.rglob("*") if each.is_file())
        return {str(each.relative_to(path)): each.read_bytes() for each in found}


@pytest.mark.parametrize(
    ("volume", "follows"),
    [
        ({"configMap": {"name": "m"}}, True),
        ({"secret": {"secretName": "s"}}, True),
        ({"emptyDir": {}}, False),
        ({"projected": {"sources": [TOKEN, AUTHORITY, NAME]}}, False),
        ({"projected": {"sources": [TOKEN, LABELS]}}, True),
        (LABELS, True),
        (NAME, False),
    ],
)
def test_only_volumes_that_can_change_are_followed(volume: Object, follows: bool) -> None:
    pod = {"spec": {"volumes": [{"name": "v", **volume}]}}
    assert bool(followed(pod)) is follows


def test_keys_that_come_change_and_go_are_files_that_do(tmp_path: Path) -> None:
    machine = Machine(tmp_path, configMap={"name": "m"})
    machine.objects["configmaps", "m"] = {"data": {"a": "1", "b": "2"}}
    directory = machine.prepare()
    kept = (directory / "b").stat().st_ino
    machine.objects["configmaps", "m"] = {"data": {"a": "10", "b": "2", "c": "3"}}
    assert machine.refresh() == {"a": b"10", "b": b"2", "c": b"3"}
    assert (directory / "b").stat().st_ino == kept
    machine.objects["configmaps", "m"] = {"data": {"c": "3"}}
    assert machine.refresh() == {"c": b"3"}
    assert directory.stat().st_ino == machine.places.pod("acme", "u1").joinpath("volumes", "v").stat().st_ino


def test_what_is_optional_comes_and_goes_and_what_is_not_stays_as_it_was(tmp_path: Path) -> None:
    machine = Machine(tmp_path, secret={"secretName": "s", "optional": True})
    machine.prepare()
    assert machine.refresh() == {}
    machine.objects["secrets", "s"] = {"data": {"k": "MQ=="}}
    assert machine.refresh() == {"k": b"1"}
    del machine.objects["secrets", "s"]
    assert machine.refresh() == {}
    machine = Machine(tmp_path, configMap={"name": "m"})
    machine.objects["configmaps", "m"] = {"data": {"a": "1"}}
    machine.prepare()
    del machine.objects["configmaps", "m"]
    assert machine.refresh() == {"a": b"1"}


def test_tokens_beside_them_are_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path, projected={"sources": [TOKEN, LABELS]})
    machine.prepare()
    machine.pod["metadata"]["labels"] = {"a": "c"}
    assert machine.refresh() == {"token": b"token 1", "labels": b'a="c"'} and machine.issued == 1


def test_a_pod_that_runs_sees_a_config_map_change(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        metadata = {"name": "m", "namespace": "default"}
        await world.api.create(ACME, "configmaps", {"metadata": metadata, "data": {"a": "1"}})
        await world.pod("p", volumes=[{"name": "v", "configMap": {"name": "m"}}, {"name": "w", **LABELS}])
        await world.phase("p", "Running")
        uid = world.api.get(ACME, "pods", "default", "p")["metadata"]["uid"]
        volumes = Places(tmp_path, lambda _: -1).pod(ACME, uid) / "volumes"

        async def shows(file: Path, text: str) -> None:
            await world.passes(1.0)
            await world.until(lambda: file.read_text() == text)

        await world.api.edit(ACME, "configmaps", "default", "m", lambda it: it.update(data={"a": "2"}))
        await shows(volumes / "v" / "a", "2")

        def label(pod: Object) -> None:
            pod["metadata"]["labels"] = {"tier": "web"}

        await world.api.edit(ACME, "pods", "default", "p", label)
        await shows(volumes / "w" / "labels", 'tier="web"')

    in_world(tmp_path, story)
