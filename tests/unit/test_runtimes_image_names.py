"""Names of images and the credentials that go with them."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from walras.runtimes import image_names
from walras.runtimes.base import ImageError
from walras.runtimes.engine import registries
from walras.runtimes.engine.images import names

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("given", "tagged"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:1.36", "busybox:1.36"),
        ("team/app", "team/app:latest"),
        ("localhost:5000/team/app:v1", "localhost:5000/team/app:v1"),
        ("registry.example/app@" + DIGEST, "registry.example/app@" + DIGEST),
        ("registry.example/app:v1@" + DIGEST, "registry.example/app:v1@" + DIGEST),
    ],
)
def test_a_name_without_tag_and_digest_is_of_the_latest(given: str, tagged: str) -> None:
    assert image_names.tagged(given) == tagged


@pytest.mark.parametrize(
    "given",
    ["", "Busybox", "app:", "app@sha256:12", "a b", "../x", "app:v1:v2", "a" * 64, "f" * 64, "/app", "é"],
)
def test_what_is_no_name_is_refused_in_the_kubelets_words(given: str) -> None:
    if given == "a" * 64:
        assert image_names.tagged(given) == "", "an id is no name"
        return
    assert image_names.tagged(given) == ""
    assert image_names.invalid(given).startswith(f'Failed to apply default image tag "{given}": ')
    lower = given == "Busybox"
    assert image_names.invalid(given).endswith("must be lowercase" if lower else "invalid reference format")


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox:1", ("docker.io/library/busybox:1", "localhost/busybox:1")),
        ("team/app:1", ("docker.io/team/app:1",)),
        ("localhost/app:1", ("localhost/app:1",)),
        ("127.0.0.1:5000/a/b:1", ("127.0.0.1:5000/a/b:1",)),
        ("quay.example/app@" + DIGEST, ("quay.example/app@" + DIGEST,)),
    ],
)
def test_a_short_name_is_of_the_hub_or_of_this_machine(image: str, full: tuple[str, ...]) -> None:
    assert names(image) == full


def secret(auths: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps({"auths": auths}).encode()
    data = {".dockerconfigjson": base64.b64encode(text).decode()}
    return {"type": "kubernetes.io/dockerconfigjson", "data": data}


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:pw:{user}".encode()).decode()}


def test_keys_are_of_the_images_registry_and_the_most_particular_comes_first() -> None:
    held = secret(
        {
            "https://registry.example/v2/": auth("all"),
            "registry.example/team": auth("team"),
            "registry.example/other": auth("other"),
            "*.example": auth("any"),
            "elsewhere.example:5000": {"username": "u", "password": "p"},
        }
    )
    found = image_names.keys([held], "registry.example/team/app:1")
    assert [key["username"] for key in found] == ["team", "all", "any"]
    assert found[0]["password"] == "pw:team"
    assert image_names.keys([held], "registry.example.evil/team/app") == ()
    assert image_names.keys([held], "elsewhere.example:5000/x") == ({"username": "u", "password": "p"},)


def test_the_old_form_and_the_hubs_many_names_are_understood() -> None:
    text = json.dumps({"https://index.docker.io/v1/": auth("me")}).encode()
    old = {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": base64.b64encode(text).decode()}}
    assert [key["username"] for key in image_names.keys([old], "busybox:1")] == ["me"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"[" * 5_000,
        b'{"auths": {"\xff": 3}}',
        b'{"auths": 7}',
        b'{"auths": {"r.example": {"auth": "%%"}}}',
        b'{"auths": {"r.example": 3}}',
    ],
)
def test_a_secret_that_says_nothing_gives_no_key(text: bytes) -> None:
    data = {".dockerconfigjson": base64.b64encode(text).decode()}
    held = {"type": "kubernetes.io/dockerconfigjson", "data": data}
    assert image_names.keys([held, {"type": "Opaque"}], "r.example/app") == ()


@pytest.mark.parametrize(
    ("name", "config", "taken"),
    [
        ("127.0.0.1:5000/app:1", "", False),
        ("localhost:5000/app:1", "", False),
        ("[::1]:5000/app:1", "", False),
        ("169.254.169.254/app:1", "", False),
        ("10.1.2.3/app:1", "", False),
        ("8.8.8.8/app:1", "", True),
        ("no-such-host.invalid/app:1", "", True),
        ("10.1.2.3/app:1", '[[registry]]\nlocation = "10.1.2.3"', True),
        ("10.1.2.34/app:1", '[[registry]]\nlocation = "10.1.2.3"', False),
        ("10.1.2.3/team/app:1", '[[registry]]\nprefix = "10.1.2.3/team"\nlocation = "x"', True),
        ("10.1.2.3/other/app:1", '[[registry]]\nprefix = "10.1.2.3/team"\nlocation = "x"', False),
        ("10.1.2.3/app:1", "registry = 7", False),
        ("10.1.2.3/app:1", "no toml", False),
    ],
)
def test_a_registry_is_public_or_the_operators(tmp_path: Path, name: str, config: str, taken: bool) -> None:
    (tmp_path / "registries.conf").write_text(config)
    asked = registries.check(name, tmp_path / "registries.conf")
    if taken:
        asyncio.run(asked)
    else:
        with pytest.raises(ImageError, match="not a public address"):
            asyncio.run(asked)
