from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from walras.core.errors import BadRequest
from walras.runtimes.environment import ConfigError, EnvSource
from walras.runtimes.volumes import Places, Volume, mounts, prepare

OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    ("configmaps", "code"): {"data": {"main.py": "print()", "util.py": ""}, "binaryData": {"blob": "AAE="}},
    ("secrets", "keys"): {"data": {"token": "c2VjcmV0"}},
    ("persistentvolumeclaims", "data"): {"status": {"phase": "Bound"}},
    ("persistentvolumeclaims", "new"): {"status": {"phase": "Pending"}},
}


def lookup(resource: str, name: str) -> Mapping[str, Any] | None:
    return OBJECTS.get((resource, name))


def prepared(tmp_path: Path, *volumes: dict[str, Any]) -> dict[str, Volume]:
    metadata = {"name": "p", "namespace": "default", "uid": "u1", "labels": {"a": "b"}}
    pod = {"metadata": metadata, "spec": {"volumes": list(volumes), "containers": [{"name": "c"}]}}
    return prepare(Places(tmp_path, lambda _: -1), "acme", EnvSource(pod, {"metadata": {}}, lookup))


def files(volume: Volume) -> dict[str, bytes]:
    found = (each for each in volume.path.rglob("*") if each.is_file())
    return {str(each.relative_to(volume.path)): each.read_bytes() for each in found}


def test_config_maps_and_secrets_become_files_that_pods_cannot_change(tmp_path: Path) -> None:
    found = prepared(
        tmp_path,
        {"name": "code", "configMap": {"name": "code"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
    )
    assert files(found["code"]) == {"main.py": b"print()", "util.py": b"", "blob": b"\0\1"}
    assert files(found["keys"]) == {"token": b"secret"}
    assert (found["keys"].path / "token").stat().st_mode & 0o777 == 0o400
    assert not found["code"].writable


def test_a_container_may_write_to_its_volumes_whoever_it_runs_as(tmp_path: Path) -> None:
    """Though the umask of the server may say otherwise."""
    found = prepared(
        tmp_path,
        {"name": "tmp", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
    )
    assert {found[name].path.stat().st_mode & 0o777 for name in ("tmp", "data")} == {0o777}
    Places(tmp_path, lambda _: -1).close_off()
    assert found["tmp"].path.is_relative_to(tmp_path / "agents")
    assert (tmp_path / "agents").stat().st_mode & 0o777 == 0o700


def test_items_choose_files_and_paths(tmp_path: Path) -> None:
    items = [{"key": "main.py", "path": "bin/run.py", "mode": 0o755}]
    found = prepared(tmp_path, {"name": "v", "configMap": {"name": "code", "items": items}})
    assert files(found["v"]) == {"bin/run.py": b"print()"}


def test_projected_volumes_join_sources(tmp_path: Path) -> None:
    sources = [
        {"secret": {"name": "keys"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    found = prepared(tmp_path, {"name": "v", "projected": {"sources": sources}})
    assert files(found["v"]) == {"token": b"secret", "labels": b'a="b"'}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"persistentVolumeClaim": {"claimName": "none"}}, 'persistentvolumeclaim "none" not found'),
        ({"persistentVolumeClaim": {"claimName": "new"}}, "is not bound"),
        ({"hostPath": {"path": "/"}}, "is of type hostPath, which the process runtime does not have"),
    ],
)
def test_what_cannot_be_mounted_is_named(tmp_path: Path, volume: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(tmp_path, {"name": "v", **volume})


def test_a_claim_outlives_its_pods_and_an_empty_directory_does_not(tmp_path: Path) -> None:
    volumes = (
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "tmp", "emptyDir": {}},
    )
    found = prepared(tmp_path, *volumes)
    for each in found.values():
        (each.path / "file").write_text("x")
    Places(tmp_path, lambda _: -1).remove_pod("acme", "u1")
    found = prepared(tmp_path, *volumes)
    assert [sorted(files(found[name])) for name in ("data", "tmp")] == [["file"], []]


def test_removing_a_pods_volumes_follows_no_symbolic_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    found = prepared(tmp_path, {"name": "tmp", "emptyDir": {}})
    os.symlink(outside, found["tmp"].path / "link")
    Places(tmp_path, lambda _: -1).remove_pod("acme", "u1")
    assert (outside / "precious").exists() and not found["tmp"].path.exists()


def test_a_claim_whose_directory_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    place = Places(tmp_path, lambda _: -1).claim("acme", "default", "data")
    place.parent.mkdir(parents=True)
    os.symlink("/etc", place)
    with pytest.raises(OSError, match="data"):
        prepared(tmp_path, {"name": "data", "persistentVolumeClaim": {"claimName": "data"}})


@pytest.mark.parametrize("name", ["..", "a/b", "", "."])
def test_names_cannot_leave_their_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest):
        Places(tmp_path, lambda _: -1).claim("acme", "default", name)


VOLUMES = {"rw": Volume(Path("/d/rw"), True), "ro": Volume(Path("/d/ro"), False)}


def mounted(*pairs: tuple[str, str], **more: Any) -> list[tuple[str, str, bool]]:
    wanted = [{"name": name, "mountPath": path, **more} for name, path in pairs]
    found = mounts({"name": "c", "volumeMounts": wanted}, VOLUMES, {})
    return [(each.source, each.target, each.read_only) for each in found]


def test_what_the_server_writes_is_mounted_read_only() -> None:
    assert mounted(("rw", "/data/"), ("ro", "/app")) == [
        ("/d/rw", "/data", False),
        ("/d/ro", "/app", True),
    ]
    assert mounted(("rw", "/run/mine")) == [("/d/rw", "/run/mine", False)]


@pytest.mark.parametrize(
    ("pairs", "more", "message"),
    [
        ([("rw", "/")], {}, "keeps this place"),
        ([("rw", "/data/../etc")], {}, "keeps this place"),
        ([("rw", "/usr/lib")], {}, "keeps this place"),
        ([("rw", "/run")], {}, "keeps this place"),
        ([("rw", "/run/walras")], {}, "keeps this place"),
        ([("rw", "/data"), ("ro", "/data/config")], {}, "lies inside the volume mounted at /data"),
        ([("rw", "/data")], {"subPath": "x"}, "subPath of a volume that pods can write to"),
        ([("none", "/data")], {}, 'volume "none" is not in the pod'),
    ],
)
def test_places_where_a_pod_could_lead_the_server_astray_are_refused(
    pairs: list[tuple[str, str]], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mounted(*pairs, **more)
