"""ResourceQuota: what a write adds to what its namespace uses, counted in the transaction of the write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from walras.kube import amounts
from walras.kube.admission import usage
from walras.kube.admission.call import Call
from walras.kube.amounts import Amounts
from walras.kube.objects import PODS
from walras.kube.policy import forbidden
from walras.kube.record import Object

QUOTAS: Final = "resourcequotas"


def validate(call: Call) -> None:
    """Raises Forbidden where a quota would be exceeded; else notes the new usage in its status."""
    if call.new is None or not call.namespace or not _counts(call):
        return
    quotas = call.api.list(call.ctx.cluster, QUOTAS, call.namespace)
    if not quotas:
        return
    given = usage.of(call.key, call.new)
    before = usage.of(call.key, call.old) if call.old is not None else {}
    for each in quotas:
        quota = call.tx.peek(call.ctx.cluster, QUOTAS, call.namespace, each["metadata"]["name"])
        if quota is None or not usage.in_scope(quota, call.key, call.new):
            continue
        counted = before if call.old is not None and usage.in_scope(quota, call.key, call.old) else {}
        added = amounts.less(given, counted, floor=True)
        _charge(call, quota, {name: amount for name, amount in added.items() if amounts.value(amount) != 0})


def _counts(call: Call) -> bool:
    """Whether the write can change what is used."""
    if call.operation == "CREATE":
        return not call.subresource
    if call.operation != "UPDATE":
        return False
    if call.key == PODS:
        return call.subresource == "resize" or (
            not call.subresource and usage.is_terminating(call.object) != usage.is_terminating(call.old or {})
        )
    return not call.subresource and call.key in ("persistentvolumeclaims", "services")


def _charge(call: Call, quota: Object, added: Amounts) -> None:
    name = quota["metadata"]["name"]
    status = quota.get("status") or {}
    hard: Mapping[str, Any] = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}
    bounded = usage.matching(call.key, hard)
    why = usage.unsaid(call.key, call.object, bounded)
    if why:
        raise forbidden(call.key, call.name, f"failed quota: {name}: {why}")
    wanted = {each: amount for each, amount in added.items() if each in hard}
    if not wanted:
        return
    used = status.get("used")
    if used is None or any(each not in used for each in bounded):
        # The controller has not counted yet: what there is says it as well.
        used = usage.counted(call.api, call.ctx.cluster, quota)
    total = amounts.added(used, wanted)
    over = sorted(each for each in wanted if amounts.value(total[each]) > amounts.value(hard[each]))
    if over:
        raise forbidden(
            call.key,
            call.name,
            f"exceeded quota: {name}, requested: {_shown(wanted, over)}, used: {_shown(used, over)}, "
            f"limited: {_shown(hard, over)}",
        )
    if call.ctx.dry_run:
        return

    def note(latest: Object) -> None:
        kept = latest.get("status") or {}
        latest["status"] = {**kept, "hard": dict(hard), "used": {each: total.get(each, "0") for each in hard}}

    call.tx.edit(call.ctx.cluster, QUOTAS, call.namespace, name, note)


def _shown(amounts_by_name: Mapping[str, Any], names: Iterable[str]) -> str:
    return ",".join(f"{name}={amounts.shown(amounts_by_name.get(name, '0'))}" for name in names)
