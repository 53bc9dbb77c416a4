"""What kubelet writes below /etc of a pod that has a network: hosts and resolv.conf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from walras.runtimes.base import Mount, PodRef
from walras.runtimes.volumes import Places

Object = Mapping[str, Any]
DOMAIN: Final = "cluster.local"
_HOSTS: Final = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
fe00::\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hosts(pod: Object, address: str) -> str:
    """The text of /etc/hosts."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = str(spec.get("hostname") or metadata["name"])
    names = [name]
    if subdomain := spec.get("subdomain"):
        names.insert(0, f"{name}.{subdomain}.{metadata['namespace']}.svc.{DOMAIN}")
    lines = [_HOSTS, "\t".join([address, *names]), "\n"]
    if aliases := spec.get("hostAliases"):
        lines.append("\n# Entries added by HostAliases.\n")
        lines += ["\t".join([str(each["ip"]), *each.get("hostnames", ())]) + "\n" for each in aliases]
    return "".join(lines)


def resolv_conf(pod: Object, name_server: str) -> str:
    """The text of /etc/resolv.conf. Only the cluster's own name server is there to be asked."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    config = spec.get("dnsConfig") or {}
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    if str(spec.get("dnsPolicy") or "ClusterFirst").startswith("ClusterFirst"):
        servers = [name_server]
        searches = [f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN]
        options = {"ndots": "5"}
    servers = _distinct(servers, config.get("nameservers"))
    searches = _distinct(searches, config.get("searches"))
    options |= {str(each["name"]): str(each.get("value") or "") for each in config.get("options") or ()}
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {each}" for each in servers]
    if options:
        words = (f"{name}:{value}" if value else name for name, value in options.items())
        lines.append(f"options {' '.join(words)}")
    return "\n".join([*lines, ""])


def _distinct(first: Iterable[str], more: Iterable[str] | None) -> list[str]:
    return list(dict.fromkeys([*first, *(more or ())]))


def write(places: Places, ref: PodRef, pod: Object, address: str, name_server: str) -> tuple[Mount, ...]:
    """Writes both, as mounts for the pod's containers. Raises OSError."""
    directory = places.pod(ref.cluster, ref.uid) / "etc"
    directory.mkdir(parents=True, exist_ok=True)
    mounts = []
    for name, text in (("hosts", hosts(pod, address)), ("resolv.conf", resolv_conf(pod, name_server))):
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        mounts.append(Mount(str(path), f"/etc/{name}", read_only=True))
    return tuple(mounts)


def beside(own: Iterable[Mount], files: Iterable[Mount]) -> tuple[Mount, ...]:
    """The pod's files without those at whose places a container mounts something of its `own`."""
    taken = {mount.target for mount in own}
    return tuple(each for each in files if each.target not in taken)
