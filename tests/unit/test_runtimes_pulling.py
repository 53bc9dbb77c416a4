"""A pod's images: pulled as its policy says, and waited for as kubelet does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.kubelet import ACME, World, in_world

from walras.runtimes.base import ImageError, PodRef
from walras.runtimes.fake import FakeRuntime

Keys = tuple[Mapping[str, str], ...]


@dataclass
class Registry:
    """See base.Images: what is `here`, and what can be had, with which user."""

    here: dict[str, str] = field(default_factory=dict)
    there: dict[str, str] = field(default_factory=dict)
    pulled: list[str] = field(default_factory=list)

    async def find(self, pod: PodRef, image: str, keys: Keys) -> str:
        del pod, keys
        return self.here.get(image, "")

    async def pull(self, pod: PodRef, image: str, keys: Keys) -> tuple[str, int]:
        del pod
        self.pulled.append(image)
        user = self.there.get(image)
        if user is None:
            raise ImageError("manifest unknown")
        if user and user not in {key["username"] for key in keys}:
            raise ImageError("unauthorized")
        self.here[image] = f"id-of-{image}"
        return self.here[image], 1234

    async def copy_out(self, pod: PodRef, image_id: str, directory: str, into: Path, bytes_max: int) -> None:
        raise ImageError("a registry of names has no files")


def said(world: World, reason: str) -> list[str]:
    return [message for _, why, message in world.events.said if why == reason]


def waiting(world: World, name: str = "p") -> dict[str, Any]:
    return dict(world.container(name).get("state", {}).get("waiting", {}))


def test_an_image_is_pulled_once_and_its_id_is_shown(tmp_path: Path) -> None:
    registry = Registry(there={"app:1": ""})

    async def story(world: World) -> None:
        await world.pod("p", container={"image": "app:1", "command": None})
        await world.phase("p", "Running")
        assert world.container("p")["imageID"] == "id-of-app:1"
        assert world.runtime.processes[0].spec.image_id == "id-of-app:1"
        assert said(world, "Pulling") == ['Pulling image "app:1"']
        assert said(world, "Pulled") == [
            'Successfully pulled image "app:1" in 0s (0s including waiting). Image size: 1234 bytes.'
        ]
        await world.pod("q", container={"image": "app:1"})
        await world.phase("q", "Running")
        assert registry.pulled == ["app:1"]
        present = 'Container image "app:1" already present on machine and can be accessed by the pod'
        assert said(world, "Pulled")[1:] == [present]

    in_world(tmp_path, story, FakeRuntime(images=registry))


def test_the_policy_always_pulls_what_is_here(tmp_path: Path) -> None:
    registry = Registry(here={"app:1": "old"}, there={"app:1": ""})

    async def story(world: World) -> None:
        await world.pod("p", container={"image": "app:1", "imagePullPolicy": "Always"})
        await world.phase("p", "Running")
        assert registry.pulled == ["app:1"]

    in_world(tmp_path, story, FakeRuntime(images=registry))


def _waits(world: World, seconds: float) -> bool:
    return seconds in world.timers.pending()


def test_a_pull_that_fails_is_tried_again_later_and_later(tmp_path: Path) -> None:
    registry = Registry()

    async def story(world: World) -> None:
        await world.pod("p", container={"image": "app"})
        for tries, delay_s in enumerate((10, 20, 40), 1):
            await world.until(lambda: waiting(world).get("reason") == "ErrImagePull")
            assert waiting(world)["message"] == "manifest unknown"
            await world.passes(2)
            await world.until(lambda: waiting(world).get("reason") == "ImagePullBackOff")
            assert waiting(world)["message"] == 'Back-off pulling image "app": ErrImagePull: manifest unknown'
            await world.until(partial(_waits, world, delay_s - 2))
            assert registry.pulled == ["app:latest"] * tries
            if tries == 3:
                registry.there["app:latest"] = ""
            world.timers.fire(delay_s - 2)
        await world.phase("p", "Running")
        assert {"Error: ErrImagePull", "Error: ImagePullBackOff"} <= set(said(world, "Failed"))

    in_world(tmp_path, story, FakeRuntime(images=registry))


@pytest.mark.parametrize(
    ("image", "policy", "reason", "message"),
    [
        (
            "app",
            "Never",
            "ErrImageNeverPull",
            'Container image "app" is not present with pull policy of Never',
        ),
        (
            "App",
            "IfNotPresent",
            "InvalidImageName",
            'Failed to apply default image tag "App": couldn\'t parse image name "App": '
            "repository name must be lowercase",
        ),
    ],
)
def test_what_is_never_pulled_waits_and_says_why(
    tmp_path: Path, image: str, policy: str, reason: str, message: str
) -> None:
    registry = Registry(there={"app:latest": ""})

    async def story(world: World) -> None:
        await world.pod("p", container={"image": image, "imagePullPolicy": policy})
        await world.until(lambda: waiting(world).get("reason") == reason)
        assert waiting(world)["message"] == message
        assert not registry.pulled
        await world.api.delete(ACME, "pods", "default", "p")
        await world.until(lambda: world.gone("p"))

    in_world(tmp_path, story, FakeRuntime(images=registry))


def test_a_pods_secrets_open_a_registry_and_one_that_is_missing_is_told(tmp_path: Path) -> None:
    registry = Registry(there={"registry.example/app:1": "me"})

    async def story(world: World) -> None:
        config = {"auths": {"registry.example": {"username": "me", "password": "secret"}}}
        data = {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}
        held = {"metadata": {"name": "key", "namespace": "default"}, "type": "kubernetes.io/dockerconfigjson"}
        await world.api.create(ACME, "secrets", {**held, "data": data})
        await world.pod(
            "p",
            container={"image": "registry.example/app:1"},
            imagePullSecrets=[{"name": "lost"}, {"name": "key"}],
        )
        await world.phase("p", "Running")
        (warning,) = said(world, "FailedToRetrieveImagePullSecret")
        assert warning.startswith("Unable to retrieve some image pull secrets (lost);")

    in_world(tmp_path, story, FakeRuntime(images=registry))


def test_a_registry_that_does_not_answer_holds_up_no_pods_end(tmp_path: Path) -> None:
    class Silent(Registry):
        async def pull(self, pod: PodRef, image: str, keys: Keys) -> tuple[str, int]:
            await super().pull(pod, image, keys)
            await asyncio.Event().wait()
            raise AssertionError

    registry = Silent(there={"app:1": ""})

    async def story(world: World) -> None:
        for name in ("p", "q"):
            await world.pod(name, container={"image": "app:1", "imagePullPolicy": "Always"})
        await world.until(lambda: len(registry.pulled) == 2)
        await world.api.delete(ACME, "pods", "default", "p")
        await world.until(lambda: world.gone("p"))
        async with asyncio.timeout(5):
            await world.kubelet.stop_node(ACME, "base")
        assert world.status("q")["phase"] == "Failed"

    in_world(tmp_path, story, FakeRuntime(images=registry))
