from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from walras.runtimes.environment import ConfigError, EnvSource, command, environment, expand, gpu

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "search"}},
    "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]},
}
CONFIG = {"data": {"COLOUR": "red", "SIZE": "3"}}
SECRET = {"data": {"KEY": base64.b64encode(b"s3cret").decode()}}
NODE: dict[str, Any] = {"metadata": {"name": "n"}, "status": {"allocatable": {"memory": "1Gi", "cpu": "2"}}}


def lookup(resource: str, name: str) -> Mapping[str, Any] | None:
    return {("configmaps", "settings"): CONFIG, ("secrets", "keys"): SECRET}.get((resource, name))


def made(*env: dict[str, Any], **container: Any) -> dict[str, str]:
    source = EnvSource(POD, NODE, lookup)
    return environment(source, {**POD["spec"]["containers"][0], "env": env, **container}, {"BASE": "b"})


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        # From k8s.io/kubernetes/third_party/forked/golang/expansion/expand_test.go.
        ("$(VAR_A)", "A"),
        ("___$(VAR_B)___", "___B___"),
        ("$(VAR_A)-1", "A-1"),
        ("$$(VAR_B)_$(VAR_A)", "$(VAR_B)_A"),
        ("f000-$$VAR_A", "f000-$VAR_A"),
        ("foo\\$(VAR_C)bar", "foo\\Cbar"),
        ("$(VAR_DNE)", "$(VAR_DNE)"),
        ("$VAR_A)", "$VAR_A)"),
        ("$(VAR_A", "$(VAR_A"),
        ("$", "$"),
        ("$$$$$$$(VAR_A)", "$$$A"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, meaning: str) -> None:
    assert expand(text, {"VAR_A": "A", "VAR_B": "B", "VAR_C": "C"}) == meaning


def test_variables_see_those_before_them() -> None:
    env = made(
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(BASE)$(C)"}, {"name": "C", "value": "x"}
    )
    assert env == {"BASE": "b", "A": "1", "B": "1b$(C)", "C": "x"}


def test_whole_config_maps_and_secrets_come_first_and_with_a_prefix() -> None:
    sources = [{"configMapRef": {"name": "settings"}, "prefix": "S_"}, {"secretRef": {"name": "keys"}}]
    env = made({"name": "KEY", "value": "mine"}, envFrom=sources)
    assert env == {"BASE": "b", "S_COLOUR": "red", "S_SIZE": "3", "KEY": "mine"}


def test_single_keys_fields_and_resources() -> None:
    def of(**origin: Any) -> dict[str, Any]:
        return {"name": next(iter(origin)), "valueFrom": origin}

    env = made(
        of(secretKeyRef={"name": "keys", "key": "KEY"}),
        of(fieldRef={"fieldPath": "metadata.labels['app']"}),
        of(resourceFieldRef={"resource": "limits.cpu"}),
    )
    assert (env["secretKeyRef"], env["fieldRef"], env["resourceFieldRef"]) == ("s3cret", "search", "2")
    memory = made(of(resourceFieldRef={"resource": "limits.memory", "divisor": "1Mi"}))
    assert memory["resourceFieldRef"] == "1024"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"name": "none", "key": "K"}, 'configmap "none" not found'),
        ({"name": "settings", "key": "K"}, "couldn't find key K in ConfigMap ns/settings"),
    ],
)
def test_what_is_missing_is_named_unless_it_is_optional(reference: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made({"name": "X", "valueFrom": {"configMapKeyRef": reference}})
    assert "X" not in made({"name": "X", "valueFrom": {"configMapKeyRef": {**reference, "optional": True}}})


def test_words_of_a_command_have_variables_in_them() -> None:
    assert command(None, {}) == ()
    assert command(["run", "--name=$(NAME)", "$$(NAME)"], {"NAME": "n"}) == ("run", "--name=n", "$(NAME)")


def node(*shares: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"annotations": {"walras.dev/devices": msgspec.json.encode(shares).decode()}}}


def test_emulated_devices_pass_no_files_and_hide_real_ones() -> None:
    found = gpu(
        node({"device": "g0", "index": 0, "milliGPU": 250, "memoryMiB": 10, "enforcement": "emulated"})
    )
    assert found.devices == ()
    assert found.env["WALRAS_MILLIGPU"] == "250" and found.env["CUDA_VISIBLE_DEVICES"] == ""


THIRD = {
    "device": "g2", "index": 2, "milliGPU": 250, "memoryMiB": 10240, "uuid": "GPU-3",
    "files": ["/dev/nvidia2", "/dev/nvidiactl"],
}  # fmt: skip


def test_an_mps_share_of_the_third_card_is_the_only_card_inside() -> None:
    found = gpu(node({**THIRD, "enforcement": "mps"}), lambda uuid: (f"/run/{uuid}", f"/dev/shm/{uuid}"))
    assert found.devices == ("/dev/nvidia2", "/dev/nvidiactl")
    assert found.env["CUDA_VISIBLE_DEVICES"] == found.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-3"
    assert found.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
    assert found.env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=10240M"
    assert [(each.source, each.target) for each in found.mounts] == [
        ("/run/GPU-3", found.env["CUDA_MPS_PIPE_DIRECTORY"]),
        ("/dev/shm/GPU-3", "/dev/shm"),
    ]


def test_an_instance_is_named_and_has_its_own_device_files() -> None:
    cap = "/dev/nvidia-caps/nvidia-cap12"
    share = {**THIRD, "uuid": "MIG-1", "files": ["/dev/nvidia2", cap], "enforcement": "mig"}
    found = gpu(node(share))
    assert found.env["CUDA_VISIBLE_DEVICES"] == "MIG-1"
    assert found.devices == ("/dev/nvidia2", cap)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in found.env and found.mounts == ()


def test_two_cards_share_their_control_files() -> None:
    other = {**THIRD, "uuid": "GPU-4", "files": ["/dev/nvidia3", "/dev/nvidiactl"]}
    found = gpu(node(*({**each, "enforcement": "exclusive"} for each in (THIRD, other))))
    assert found.devices == ("/dev/nvidia2", "/dev/nvidiactl", "/dev/nvidia3")
    assert found.env["CUDA_VISIBLE_DEVICES"] == "GPU-3,GPU-4"
