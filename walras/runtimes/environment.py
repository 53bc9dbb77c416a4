"""A container's environment and command, from the pod, its ConfigMaps and its Secrets. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, WalrasError
from walras.core.quantity import parse_milli, parse_quantity
from walras.runtimes.base import Mount

Object = Mapping[str, Any]
# (resource key, name) of an object in the pod's namespace, None when there is none.
Lookup = Callable[[str, str], Object | None]

DEVICES_ANNOTATION: Final = "walras.dev/devices"
HOST_IP: Final = "127.0.0.1"
# Where a container finds the MPS daemon of its card.
MPS_PIPE: Final = "/run/nvidia-mps"
_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^()$]*)\))")
_KEYED: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigError(BadRequest):
    """A container's configuration refers to something that is not there; kubelet tries again later."""


class NotYet(ConfigError):
    """It refers to what the pod's own metadata or programs may bring about, which nothing tells of."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by the variable, left alone when there is none; `$$` is one dollar sign.

    As k8s.io/kubernetes/third_party/forked/golang/expansion.
    """

    def value(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return env.get(match.group(1), match.group())

    return _REFERENCE.sub(value, text)


def expand_path(text: str, env: Mapping[str, str]) -> str:
    """As `expand`, of what names a place in a volume. Raises NotYet for a variable that is not there."""
    named = {match.group(1) for match in _REFERENCE.finditer(text) if match.group() != "$$"}
    if missing := sorted(name for name in named if not env.get(name)):
        raise NotYet(f"missing value for {', '.join(missing)}")
    return expand(text, env)


def command(words: Iterable[object] | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """A container's `command` or its `args`, with variables."""
    return tuple(expand(str(word), env) for word in words or ())


def field_value(pod: Object, path: str, address: str = HOST_IP) -> str:
    """The value of a downward API field. Raises ConfigError for one that is not offered.

    `address`: the pod's own.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    simple = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.hostIP": HOST_IP,
        "status.hostIPs": HOST_IP,
        "status.podIP": address,
        "status.podIPs": address,
    }
    if path in simple:
        return str(simple[path] or "")
    if match := _KEYED.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = sorted((metadata.get(path.partition(".")[2]) or {}).items())
        return "\n".join(f"{key}={msgspec.json.encode(str(value)).decode()}" for key, value in pairs)
    raise ConfigError(f"unsupported fieldPath: {path}")


def resource_value(pod: Object, container: Object, reference: Object, allocatable: Object) -> str:
    """The value of a resourceFieldRef in units of its divisor, rounded up."""
    name = reference.get("containerName")
    if name:
        every = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
        container = next((each for each in every if each["name"] == name), container)
    kind, _, resource = str(reference.get("resource", "")).partition(".")
    amounts = (container.get("resources") or {}).get(kind) or {}
    amount = amounts.get(resource)
    if amount is None and kind == "limits":
        amount = allocatable.get(resource, 0)
    divisor = reference.get("divisor") or "1"
    if str(divisor) == "0":
        divisor = "1"
    if resource == "cpu":
        return str(-(-parse_milli(amount or 0) // max(1, parse_milli(divisor))))
    return str(-(-parse_quantity(amount or 0) // max(1, parse_quantity(divisor))))


def secret_data(secret: Object) -> dict[str, bytes]:
    """A Secret's values, decoded; what is no base64 is left out."""
    found = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError):
            continue
    return found


def config_data(config: Object) -> dict[str, bytes]:
    """A ConfigMap's values, text and binary."""
    texts = {key: str(value).encode() for key, value in (config.get("data") or {}).items()}
    return {**secret_data({"data": config.get("binaryData")}), **texts}


def source_data(lookup: Lookup, resource: str, name: str, optional: bool) -> dict[str, bytes] | None:
    """The data of a ConfigMap or Secret; None when it is optional and missing. Raises ConfigError."""
    found = lookup(resource, name)
    if found is None:
        if optional:
            return None
        raise ConfigError(f'{resource.removesuffix("s")} "{name}" not found')
    return secret_data(found) if resource == "secrets" else config_data(found)


@dataclass(frozen=True, slots=True)
class EnvSource:
    """What variables are made from."""

    pod: Object
    node: Object
    lookup: Lookup
    # A token of the pod's service account for an audience, "" being the API server, for so many seconds.
    token: Callable[[str, int], str] | None = None
    # The pod's own.
    address: str = HOST_IP

    @property
    def allocatable(self) -> Object:
        status = self.node.get("status") or {}
        return status.get("allocatable") or status.get("capacity") or {}


def environment(source: EnvSource, container: Object, base: Mapping[str, str]) -> dict[str, str]:
    """All variables of a container over `base`. Raises ConfigError for a reference to nothing."""
    env = dict(base)
    for each in container.get("envFrom") or ():
        prefix = each.get("prefix") or ""
        for reference, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if wanted := each.get(reference):
                optional = bool(wanted.get("optional"))
                data = source_data(source.lookup, resource, wanted.get("name", ""), optional) or {}
                env.update({prefix + key: _text(value) for key, value in data.items()})
    for each in container.get("env") or ():
        if (value := _value(source, container, each, env)) is not None:
            env[each["name"]] = value
    return env


def _value(source: EnvSource, container: Object, entry: Object, env: Mapping[str, str]) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(str(entry.get("value") or ""), env)
    if reference := origin.get("fieldRef"):
        return field_value(source.pod, str(reference.get("fieldPath")), source.address)
    if reference := origin.get("resourceFieldRef"):
        try:
            return resource_value(source.pod, container, reference, source.allocatable)
        except WalrasError as error:
            raise ConfigError(error.message) from error
    for kind, resource in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        if reference := origin.get(kind):
            return _keyed(source, resource, reference)
    raise ConfigError(f"the source of variable {entry['name']} is not supported")


def _keyed(source: EnvSource, resource: str, reference: Object) -> str | None:
    name, key, optional = reference.get("name", ""), reference.get("key", ""), bool(reference.get("optional"))
    data = source_data(source.lookup, resource, name, optional)
    if data is None:
        return None
    if key not in data:
        if optional:
            return None
        kind = "ConfigMap" if resource == "configmaps" else "Secret"
        namespace = source.pod["metadata"].get("namespace", "")
        raise ConfigError(f"couldn't find key {key} in {kind} {namespace}/{name}")
    return _text(data[key])


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape").replace("\0", "")


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a lease's devices mean for a container: variables, device files, directories of MPS."""

    env: Mapping[str, str]
    devices: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()


# Of a card's MPS daemon, by its UUID: where its pipes are, and the shared memory that goes with it.
Directories = Callable[[str], tuple[str, str]]


def lease_shares(node: Object) -> list[dict[str, Any]]:
    """The shares of devices that a node's annotation lists."""
    text = (node["metadata"].get("annotations") or {}).get(DEVICES_ANNOTATION)
    try:
        shares = msgspec.json.decode(text) if text else []
    except msgspec.DecodeError:
        shares = []
    return [each for each in shares if isinstance(each, dict)]


def gpu(node: Object, mps: Directories | None = None) -> Gpu:
    """From the node's annotation; nothing for a node without devices, no card for ones that are emulated."""
    return gpu_of(lease_shares(node), mps)


def gpu_of(shares: Sequence[dict[str, Any]], mps: Directories | None = None) -> Gpu:
    """The same of some shares."""
    if not shares:
        return Gpu({}, ())
    milli = sum(int(each.get("milliGPU", 0)) for each in shares)
    memory_mib = sum(int(each.get("memoryMiB", 0)) for each in shares)
    env = {
        "WALRAS_DEVICES": ",".join(dict.fromkeys(str(each.get("device", "")) for each in shares)),
        "WALRAS_MILLIGPU": str(milli),
        "WALRAS_GPU_MEMORY_MIB": str(memory_mib),
    }
    if any(each.get("enforcement") == "emulated" for each in shares):
        return Gpu({**env, "CUDA_VISIBLE_DEVICES": ""}, ())
    # CUDA and NVIDIA's tools know a card, and an instance of one, by the same name whatever else is there.
    uuids = list(dict.fromkeys(str(each.get("uuid", "")) for each in shares))
    env |= {"NVIDIA_VISIBLE_DEVICES": ",".join(uuids), "CUDA_VISIBLE_DEVICES": ",".join(uuids)}
    files = tuple(dict.fromkeys(str(file) for each in shares for file in each.get("files") or ()))
    if not all(each.get("enforcement") == "mps" for each in shares):
        return Gpu(env, files)
    # A program speaks to one daemon, so parts of several devices are not sold under MPS.
    env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(max(1, milli // 10))
    env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] = f"0={memory_mib}M"
    env["CUDA_MPS_PIPE_DIRECTORY"] = MPS_PIPE
    if mps is None:
        return Gpu(env, files)
    pipe, shm = mps(uuids[0])
    return Gpu(env, files, (Mount(pipe, MPS_PIPE), Mount(shm, "/dev/shm")))  # noqa: S108
