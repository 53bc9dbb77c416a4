"""What is done with a running pod: its log, requests to its ports, its binding, its eviction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

from walras.core.clock import parse_rfc3339
from walras.core.errors import BadRequest, Conflict, Unclassified
from walras.kube.options import quoted
from walras.kube.serve.answers import TEXT, Answer, Stream
from walras.kube.serve.ports import PodAccess
from walras.kube.serve.requests import flag

Object = dict[str, Any]

# How long a log may take to begin before its headers are sent without a first line.
_FIRST_LINE_S: Final = 0.25


def _number(query: Mapping[str, str], name: str, least: int) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.removeprefix("-").isdigit() or len(text) > 18:
        raise BadRequest(f"{name}: Invalid value: {text[:64]!r}: must be an integer")
    if int(text) < least:
        raise BadRequest(f"{name}: Invalid value: {text}: must be greater than or equal to {least}")
    return int(text)


def _since(query: Mapping[str, str], now_ms: int) -> int | None:
    seconds = _number(query, "sinceSeconds", 1)
    if not query.get("sinceTime"):
        return seconds
    if seconds is not None:
        raise BadRequest("at most one of `sinceTime` or `sinceSeconds` may be specified")
    try:
        return max(1, -(-(now_ms - parse_rfc3339(query["sinceTime"])) // 1000))
    except ValueError as error:
        raise BadRequest(f"sinceTime: Invalid value: {error}") from None


def container_of(pod: Object, asked: str) -> str:
    """The container a log is of: the one asked for, the default one, or the only one. Raises BadRequest."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    mains = [each["name"] for each in spec.get("containers", ())]
    others = ("initContainers", "ephemeralContainers")
    every = mains + [each["name"] for kind in others for each in spec.get(kind) or ()]
    if asked:
        if asked not in every:
            raise BadRequest(f"container {asked} is not valid for pod {name}")
        return asked
    annotations = pod["metadata"].get("annotations") or {}
    default = annotations.get("kubectl.kubernetes.io/default-container", "")
    if default in mains:
        return str(default)
    if len(mains) == 1:
        return str(mains[0])
    raise BadRequest(
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(map(str, every))}]"
    )


async def log(
    pods: PodAccess, cluster: str, pod: Object, query: Mapping[str, str], now_ms: int
) -> Answer | Stream:
    """The log of one container as plain text; 204 while the pod has no node, as kube-apiserver answers."""
    container = container_of(pod, query.get("container", ""))
    if not pod["spec"].get("nodeName"):
        return Answer(b"", 204, TEXT)
    lines = pods.logs(
        cluster,
        pod,
        container,
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        tail_lines=_number(query, "tailLines", 0),
        since_seconds=_since(query, now_ms),
        timestamps=flag(query, "timestamps"),
        limit_bytes=_number(query, "limitBytes", 1),
    )
    # Errors come with the first step: wait for it a little, so that they can still be a Status.
    first = asyncio.ensure_future(anext(aiter(lines), b""))
    await asyncio.wait((first,), timeout=_FIRST_LINE_S)
    if first.done():
        first.result()
    return Stream(_log_chunks(first, lines), 200, TEXT, close=first.cancel)


async def _log_chunks(
    first: asyncio.Future[bytes], lines: AsyncIterator[bytes]
) -> AsyncGenerator[bytes, None]:
    try:
        chunk = await first
        if chunk:
            yield chunk
        async for chunk in lines:
            yield chunk
    finally:
        if not first.done():
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()


def target(binding: Object, name: str) -> str:
    """The node that a Binding of the pod `name` names. Raises BadRequest, Unclassified."""
    metadata, wanted = binding.get("metadata"), binding.get("target")
    if not isinstance(metadata, dict) or metadata.get("name") != name:
        raise BadRequest("name in URL does not match name in Binding object")
    wanted = wanted if isinstance(wanted, dict) else {}
    kind, node = wanted.get("kind") or "", wanted.get("name")
    faults = []
    if kind not in ("", "Node"):
        faults.append(
            f'target.kind: Unsupported value: {quoted(str(kind)[:64])}: supported values: "Node", "<empty>"'
        )
    if not isinstance(node, str) or not node:
        faults.append("target.name: Required value")
    if faults:
        raise Unclassified(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
    return str(node)


def check_unbound(pod: Object) -> None:
    """Raises Conflict for a pod that has its node, or is going."""
    name, present = pod["metadata"]["name"], pod["spec"].get("nodeName")
    refused = f'Operation cannot be fulfilled on pods/binding "{name}": '
    details = {"name": name, "kind": "pods/binding"}
    if present:
        raise Conflict(f'{refused}pod {name} is already assigned to node "{present}"', details=details)
    if pod["metadata"].get("deletionTimestamp"):
        raise Conflict(f"{refused}pod {name} is being deleted, cannot be assigned to a host", details=details)


def bind(pod: Object, node: str, annotations: Mapping[str, str], now: str) -> None:
    """Puts the pod on the node, in place."""
    pod["spec"]["nodeName"] = node
    if annotations:
        pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), **annotations}
    status = pod.setdefault("status", {})
    others = [each for each in status.get("conditions") or () if each.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    status["conditions"] = [*others, scheduled]
