"""The token of its service account in every pod, as ServiceAccount admission of kube-apiserver mounts it."""

from __future__ import annotations

from typing import Any, Final

from walras.core.clock import Ids

Object = dict[str, Any]

DEFAULT: Final = "default"
PREFIX: Final = "kube-api-access-"
MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
ROOT_CA: Final = "kube-root-ca.crt"
# A few seconds more than what is asked for by hand, so that one can tell them apart.
LIFETIME_S: Final = 3607


def mount(pod: Object, account: Object | None, ids: Ids) -> None:
    """Adds, in place, the volume and its mounts, and the account's pull secrets. No account has nothing."""
    if account is None:
        return
    spec = pod.get("spec") or {}
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": each["name"]} for each in account["imagePullSecrets"]]
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = account.get("automountServiceAccountToken")
    if wanted is False:
        return
    volumes = spec.get("volumes") or []
    name = next((each["name"] for each in volumes if str(each.get("name", "")).startswith(PREFIX)), "")
    found = bool(name)
    name = name or PREFIX + ids.suffix()
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    lacking = [each for each in containers if not _has_mount(each)]
    for container in lacking:
        mounts = container.get("volumeMounts") or []
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
    if lacking and not found:
        spec["volumes"] = [*volumes, {"name": name, "projected": _source()}]


def _has_mount(container: Object) -> bool:
    return any(each.get("mountPath") == MOUNT_PATH for each in container.get("volumeMounts") or ())


def _source() -> Object:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": LIFETIME_S, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ],
    }
