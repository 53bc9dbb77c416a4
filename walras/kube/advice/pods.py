"""What the writer of a pod, or of a template of pods, is warned of: pkg/api/pod/warnings.go of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from walras.kube.advice import parts

Object = Mapping[str, Any]

_USE: Final = 'non-functional in v1.11+; use the "sysctls" field instead'
_ANNOTATIONS: Final = {
    "scheduler.alpha.kubernetes.io/critical-pod":
        'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": _USE,
    "security.alpha.kubernetes.io/unsafe-sysctls": _USE,
}  # fmt: skip
_NO_POD: Final = "a null labelSelector results in matching no pod"
_SECCOMP: Final = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_APP_ARMOR: Final = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_SECCOMP_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"
_APP_ARMOR_CONTAINER: Final = "container.apparmor.security.beta.kubernetes.io/"
_TERMS: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


def pod(template: Object, path: str = "") -> Iterator[str]:
    """Warnings of a pod, or of a template at `path`."""
    at = f"{path}." if path else ""
    spec, annotations = template.get("spec") or {}, (template.get("metadata") or {}).get("annotations") or {}
    yield from _placement(spec, f"{at}spec")
    for key, said in _ANNOTATIONS.items():
        if key in annotations:
            yield f"{at}metadata.annotations[{key}]: {said}"
    yield from _volumes(spec.get("volumes") or (), f"{at}spec.volumes")
    yield from _twice(spec.get("hostAliases") or (), f"{at}spec.hostAliases", "ip")
    secrets = spec.get("imagePullSecrets") or ()
    yield from _twice(secrets, f"{at}spec.imagePullSecrets", "name")
    for index, secret in enumerate(secrets):
        if not secret.get("name"):
            yield f'{at}spec.imagePullSecrets[{index}].name: invalid empty name ""'
    yield from parts.fractions(
        spec.get("overhead") or {}, f"{at}spec.overhead", "memory", "ephemeral-storage"
    )
    security = spec.get("securityContext") or {}
    if _SECCOMP_POD in annotations and not security.get("seccompProfile"):
        yield f"{at}metadata.annotations[{_SECCOMP_POD}]: {_SECCOMP}"
    for where, container in _containers(spec, f"{at}spec"):
        yield from _profiles(container, annotations, at, security)
        for kind in ("limits", "requests"):
            amounts = (container.get("resources") or {}).get(kind) or {}
            yield from parts.fractions(amounts, f"{where}.resources.{kind}", "memory")
        for kind in ("limits", "requests"):
            amounts = (container.get("resources") or {}).get(kind) or {}
            yield from parts.fractions(amounts, f"{where}.resources.{kind}", "ephemeral-storage")
        yield from _environment(container.get("env") or (), f"{where}.env")
    yield from _ports(list(_containers(spec, f"{at}spec")))
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield (
            f"{at}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be "
            "treated as 1"
        )
    yield from _affinity(spec.get("affinity") or {}, f"{at}spec.affinity")
    for index, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        yield from parts.ip(f"{at}spec.dnsConfig.nameservers[{index}]", server)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        yield from parts.ip(f"{at}spec.hostAliases[{index}].ip", alias.get("ip", ""))


def _containers(spec: Object, path: str) -> Iterator[tuple[str, Object]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield f"{path}.{kind}[{index}]", container


def _placement(spec: Object, path: str) -> Iterator[str]:
    for key in spec.get("nodeSelector") or {}:
        if key in parts.NODE_LABELS:
            yield f"{path}.nodeSelector[{key}]: {parts.NODE_LABELS[key]}"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    at = f"{path}.affinity.nodeAffinity"
    for index, term in enumerate((affinity.get(_TERMS) or {}).get("nodeSelectorTerms") or ()):
        yield from parts.node_term(term, f"{at}.{_TERMS}.nodeSelectorTerms[{index}]")
    for index, term in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{at}.{_PREFERRED}[{index}].preference"
        yield from parts.node_term(term.get("preference") or {}, where, values=True)
    for index, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        where, key = f"{path}.topologySpreadConstraints[{index}]", spread.get("topologyKey", "")
        if key in parts.NODE_LABELS:
            yield f"{where}.topologyKey: {key} is {parts.NODE_LABELS[key]}"
        if spread.get("labelSelector") is None:
            yield f"{where}.labelSelector: {_NO_POD}"


def _affinity(affinity: Object, path: str) -> Iterator[str]:
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        for index, term in enumerate(terms.get(_TERMS) or ()):
            if term.get("labelSelector") is None:
                yield f"{path}.{kind}.{_TERMS}[{index}].labelSelector: {_NO_POD}"
        for index, weighted in enumerate(terms.get(_PREFERRED) or ()):
            if (weighted.get("podAffinityTerm") or {}).get("labelSelector") is None:
                yield f"{path}.{kind}.{_PREFERRED}[{index}].podAffinityTerm.labelSelector: {_NO_POD}"


def _twice(items: Iterable[Object], path: str, field: str) -> Iterator[str]:
    seen: set[Any] = set()
    for index, item in enumerate(items):
        value = item.get(field, "")
        if value in seen:
            yield f"{path}[{index}].{field}: duplicate {field} {parts.quoted(value)}"
        seen.add(value)


def _profiles(container: Object, annotations: Object, at: str, of_pod: Object) -> Iterator[str]:
    security, name = container.get("securityContext") or {}, container.get("name", "")
    seccomp, armour = _SECCOMP_CONTAINER + name, _APP_ARMOR_CONTAINER + name
    if seccomp in annotations and not security.get("seccompProfile"):
        yield f"{at}metadata.annotations[{seccomp}]: {_SECCOMP}"
    # Of a pod itself the server fills in the field that the annotation stands for.
    wanted = not security.get("appArmorProfile") and not of_pod.get("appArmorProfile")
    if at and armour in annotations and wanted:
        yield f"{at}metadata.annotations[{armour}]: {_APP_ARMOR}"


def _environment(variables: Iterable[Object], path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, variable in enumerate(variables):
        name, value = variable.get("name", ""), variable.get("value", "")
        reference = f"$({name})"
        if name in seen and (variable.get("valueFrom") or value == reference or reference not in value):
            said = "which may be dropped when using apply"
            yield f"{path}[{index}]: hides previous definition of {parts.quoted(name)}, {said}"
        seen.add(name)


class _Taken:
    """Definitions of one container port, by what another one collides with: so that each that does not
    collide costs the same however many there are."""

    def __init__(self) -> None:
        self._all: list[tuple[str, str, int]] = []
        self._by: dict[tuple[int, str | bool], list[int]] = {}

    def add(self, where: str, address: str, host: int) -> None:
        for key in ((host, address), (host, bool(address))):
            self._by.setdefault(key, []).append(len(self._all))
        self._all.append((where, address, host))

    def like(self, address: str, host: int) -> Iterator[tuple[str, str, int]]:
        """Those that collide, in order."""
        if not host:
            return iter(self._all)
        keys = ((host, address), (host, not address), (0, True), (0, False))
        return (self._all[at] for at in sorted({at for key in keys for at in self._by.get(key, ())}))


def _ports(containers: list[tuple[str, Object]]) -> Iterator[str]:
    ports = [
        (f"{where}.ports[{index}]", port)
        for where, container in containers
        for index, port in enumerate(container.get("ports") or ())
    ]
    taken: dict[tuple[int, str], _Taken] = {}
    for where, port in ports:
        address, host = port.get("hostIP", ""), port.get("hostPort", 0)
        number, protocol = port["containerPort"], port.get("protocol", "")
        if address and not host:
            shown = f"Name:{port.get('name', '')} HostPort:0 ContainerPort:{number} Protocol:{protocol}"
            yield f"{where}: hostIP set without hostPort: {{{shown} HostIP:{address}}}"
        others = taken.setdefault((number, protocol), _Taken())
        for other, its_address, its_host in others.like(address, host):
            if (address, host) == (its_address, its_host):
                yield f"{where}: duplicate port definition with {other}"
            elif not host or not its_host:
                yield f"{where}: overlapping port definition with {other}"
            else:
                yield f"{where}: dangerously ambiguous port definition with {other}"
        others.add(where, address, host)
    names: dict[str, str] = {}
    for where, port in ports:
        name = port.get("name", "")
        if name in names:
            said = f"services and probes that select ports by name will use {names[name]}"
            yield f"{where}: duplicate port name {parts.quoted(name)} with {names[name]}, {said}"
        elif name:
            names[name] = where


def _volumes(volumes: Iterable[Object], path: str) -> Iterator[str]:
    for index, volume in enumerate(volumes):
        for kind, said in parts.VOLUMES.items():
            if volume.get(kind) is not None:
                yield f"{path}[{index}].{parts.VOLUME_PATHS.get(kind, kind)}: {said}"
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}
        yield from parts.claim(
            template.get("spec") or {}, f"{path}[{index}].ephemeral.volumeClaimTemplate.spec"
        )
    for volume in volumes:
        for kind in ("configMap", "secret", "downwardAPI"):
            source = volume.get(kind) or {}
            paths = [(item.get("path", ""), "") for item in source.get("items") or ()]
            for said in _overlaps(paths, _Paths()):
                where = f"volume {parts.quoted(volume['name'])} ({_source(kind, source)})"
                yield f"{where}: overlapping paths: {said}"
        if volume.get("projected") is not None:
            yield from _projected(volume["name"], volume["projected"].get("sources") or ())


def _source(kind: str, source: Object) -> str:
    name = source.get("secretName") or source.get("name", "")
    named = {"configMap": f"ConfigMap {parts.quoted(name)}", "secret": f"Secret {parts.quoted(name)}"}
    return named.get(kind, "DownwardAPI")


def _projected(name: str, sources: Iterable[Object]) -> Iterator[str]:
    before = _Paths()
    for source in sources:
        paths: list[tuple[str, str]] = []
        if not source:
            yield f"volume {parts.quoted(name)} (Projected) has no sources provided"
        for kind in ("configMap", "secret", "downwardAPI"):
            given = source.get(kind) or {}
            paths += [(each.get("path", ""), _source(kind, given)) for each in given.get("items") or ()]
        if source.get("serviceAccountToken"):
            paths.append((source["serviceAccountToken"].get("path", ""), "ServiceAccountToken"))
        if source.get("clusterTrustBundle"):
            bundle = source["clusterTrustBundle"]
            called = parts.quoted(bundle.get("name") or bundle.get("signerName", ""))
            paths.append((bundle.get("path", ""), f"ClusterTrustBundle {called}"))
        for said in _overlaps(paths, before):
            yield f"volume {parts.quoted(name)} (Projected): overlapping paths: {said}"


def _overlaps(paths: Iterable[tuple[str, str]], before: _Paths) -> Iterator[str]:
    """What of `paths` is or lies in what came before; all are added to that."""
    for path, source in paths:
        mine = path.rstrip("/")
        if mine:
            for _, other, its_source in sorted(before.touching(mine)):
                yield f"{_shown(mine, source)} with {_shown(other, its_source)}"
            before.add(mine, source)


class _Paths:
    """Paths by their parts, so that what is in the way of another is found without looking at the rest.

    Parts in a row at which no path ends or leaves are one node, since a single path may have a million.
    """

    __slots__ = ("_below", "_count", "_here", "_parts", "_start", "_stop")

    def __init__(self, parts: Sequence[str] = (), start: int = 0) -> None:
        self._count = 0
        self._parts, self._start, self._stop = parts, start, len(parts)
        self._below: dict[str, _Paths] = {}
        self._here: list[tuple[int, str, str]] = []

    def add(self, path: str, source: str) -> None:
        self._count += 1
        node, parts, at = self, path.split("/"), 0
        while at < len(parts):
            below = node._below.get(parts[at]) or _Paths(parts, at)
            shared = below._shared(parts, at)
            node._below[parts[at]] = below = below._above(shared)
            node, at = below, at + shared
        node._here.append((self._count, path, source))

    def touching(self, path: str) -> list[tuple[int, str, str]]:
        """Those that are the path, lie in it or hold it; each with when it came."""
        found: list[tuple[int, str, str]] = []
        node, parts, at = self, path.split("/"), 0
        while at < len(parts):
            found += node._here
            below = node._below.get(parts[at])
            if below is None:
                return found
            shared = below._shared(parts, at)
            at += shared
            if at < len(parts) and shared < below._stop - below._start:
                return found
            node = below
        nodes = [node]
        while nodes:
            node = nodes.pop()
            found += node._here
            nodes += node._below.values()
        return found

    def _shared(self, parts: Sequence[str], at: int) -> int:
        """How many of the node's parts are those of a path from `at` on."""
        most = min(self._stop - self._start, len(parts) - at)
        mine, start = self._parts, self._start
        return next((each for each in range(most) if mine[start + each] != parts[at + each]), most)

    def _above(self, count: int) -> _Paths:
        """A node of its first parts, with the rest of it below; itself where there is no rest."""
        middle = self._start + count
        if middle == self._stop:
            return self
        above = _Paths(self._parts, self._start)
        above._stop = self._start = middle
        above._below[self._parts[middle]] = self
        return above


def _shown(path: str, source: str) -> str:
    return f"{parts.quoted(path)} ({source})" if source else parts.quoted(path)
