"""What a failed pod means for its Job: `spec.podFailurePolicy` (KEP-3329). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from walras.tenants.objects import DISRUPTION_TARGET, condition, is_true, status

COUNT: Final = "Count"
IGNORE: Final = "Ignore"
FAIL_JOB: Final = "FailJob"
FAIL_INDEX: Final = "FailIndex"


class Verdict(NamedTuple):
    """`action` is COUNT, IGNORE, FAIL_INDEX or FAIL_JOB, the last with a message."""

    action: str
    message: str = ""


def judge(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> Verdict:
    """By the first rule that matches; a displaced pod that no rule speaks of is nobody's fault."""
    for number, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        matched = _by_exit_code(rule, pod) if rule.get("onExitCodes") else _by_condition(rule, pod)
        if matched:
            action = str(rule.get("action"))
            if action == FAIL_JOB:
                return Verdict(FAIL_JOB, f"{matched} matching FailJob rule at index {number}")
            return Verdict(action if action in (IGNORE, FAIL_INDEX) else COUNT)
    return Verdict(IGNORE if is_true(pod, DISRUPTION_TARGET) else COUNT)


def _by_exit_code(rule: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    wanted = rule["onExitCodes"]
    reported = status(pod)
    for each in (*(reported.get("initContainerStatuses") or ()), *(reported.get("containerStatuses") or ())):
        ended = (each.get("state") or {}).get("terminated")
        # Success is no failure, whatever the rule lists.
        if ended is None or not ended.get("exitCode"):
            continue
        if wanted.get("containerName") not in {None, each["name"]}:
            continue
        listed = ended["exitCode"] in (wanted.get("values") or ())
        if listed == (wanted.get("operator") == "In"):
            return f"Container {each['name']} for pod {_name(pod)} failed with exit code {ended['exitCode']}"
    return ""


def _by_condition(rule: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    for pattern in rule.get("onPodConditions") or ():
        found = condition(pod, pattern.get("type"))
        if found is not None and found.get("status") == pattern.get("status", "True"):
            return f"Pod {_name(pod)} has condition {pattern.get('type')}"
    return ""


def _name(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
