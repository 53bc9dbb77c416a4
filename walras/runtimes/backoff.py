"""When a container that ended is started again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FIRST_S: Final = 10
MOST_S: Final = 300
RESET_AFTER_MS: Final = 600_000


@dataclass
class Backoff:
    """kubelet's CrashLoopBackOff: at once, then 10 s doubling to 5 min; forgotten after 10 quiet minutes."""

    next_s: int = 0

    def delay_s(self, ran_ms: int) -> int:
        """Seconds to wait before the next start, after an attempt that ran for `ran_ms`."""
        if ran_ms >= RESET_AFTER_MS:
            self.next_s = 0
        delay = self.next_s
        self.next_s = min(max(FIRST_S, delay * 2), MOST_S)
        return delay


@dataclass(frozen=True, slots=True)
class Restart:
    """Whether a container that ended is to run again: what the first rule that matches says, else `policy`.

    `rules`: an operator, "In" or "NotIn", and the exit codes after which the container is restarted.
    """

    policy: str
    rules: tuple[tuple[str, frozenset[int]], ...] = ()

    def again(self, code: int) -> bool:
        if any((code in codes) == (operator == "In") for operator, codes in self.rules):
            return True
        return self.policy == "Always" or (self.policy == "OnFailure" and code != 0)


ALWAYS: Final = Restart("Always")


def restart_of(container: Mapping[str, Any], pod_policy: str) -> Restart:
    """The container's own policy and rules, or its pod's policy. As ContainerShouldRestart of Kubernetes."""
    if "restartPolicy" not in container:
        return Restart(pod_policy)
    rules = []
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if rule.get("action") == "Restart" and codes:
            rules.append((str(codes.get("operator")), frozenset(map(int, codes.get("values") or ()))))
    return Restart(str(container["restartPolicy"]), tuple(rules))
