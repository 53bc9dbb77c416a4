"""Requests that move to a new revision little by little, over Knative's rollout-duration. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from walras.core.errors import Invalid
from walras.core.quantity import parse_duration_ms
from walras.functions.words import ROLLOUT, ROLLOUT_DURATIONS
from walras.tenants.objects import Object, status

# (revision, percent), the oldest first.
Shares = tuple[tuple[str, int], ...]
_SHARES_MAX: Final = 100
_STEP_MS_MIN: Final = 1000
# No time is later, and a timer takes none that is much later.
_SINCE_MS_MAX: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Rollout:
    """The way of one target to `to`; `shares` is what the revisions before it had when it began."""

    to: str
    shares: Shares
    since_ms: int

    def split(self, percent: int, now_ms: int, duration_ms: int) -> Shares:
        """What of `percent` each has now, the new one last: at first 1, in the end all."""
        elapsed_ms = min(max(0, now_ms - self.since_ms), duration_ms)
        new = max(1, percent * elapsed_ms // duration_ms) if duration_ms else percent
        left, kept = percent - new, list[tuple[str, int]]()
        # The oldest give theirs up first.
        for name, share in reversed(self.shares):
            part = min(share, left)
            left -= part
            if part > 0:
                kept.append((name, part))
        return (*reversed(kept), (self.to, min(percent, new + max(0, left))))

    def next_ms(self, percent: int, now_ms: int, duration_ms: int) -> int:
        """Milliseconds until the new one gets more."""
        new = max(1, percent * max(0, now_ms - self.since_ms) // max(1, duration_ms))
        return max(_STEP_MS_MIN, self.since_ms + -(-(new + 1) * duration_ms // percent) - now_ms)


def duration_ms(route: Object) -> int:
    """How long a new revision takes; 0 is at once."""
    annotations = route["metadata"].get("annotations") or {}
    said = next((annotations[key] for key in ROLLOUT_DURATIONS if key in annotations), "")
    try:
        return parse_duration_ms(said) if said not in ("", "0", "0s", "0m", "0h") else 0
    except Invalid:
        return 0


def read(route: Object) -> dict[str, Rollout]:
    """The rollouts that go on, by the tags of their targets; none where the status does not say them so."""
    said = (status(route).get("annotations") or {}).get(ROLLOUT)
    try:
        found: dict[str, Rollout] = msgspec.json.decode(said or "{}", type=dict[str, Rollout])
    except (msgspec.MsgspecError, TypeError):
        return {}
    return {tag: each for tag, each in found.items() if _is_sound(each)}


def write(said: Object, rollouts: Mapping[str, Rollout]) -> None:
    """Puts them into a status, in place."""
    annotations: dict[str, Any] = {**(said.get("annotations") or {})}
    annotations.pop(ROLLOUT, None)
    if rollouts:
        annotations[ROLLOUT] = msgspec.json.encode(rollouts).decode()
    if annotations:
        said["annotations"] = annotations
    else:
        said.pop("annotations", None)


def _is_sound(rollout: Rollout) -> bool:
    shares = rollout.shares
    are_sound = len(shares) <= _SHARES_MAX and all(0 < percent <= 100 for _, percent in shares)
    return are_sound and 0 <= rollout.since_ms <= _SINCE_MS_MAX


class Plan:
    """What the targets of a route come to now. `rollouts` are those that go on."""

    def __init__(self, route: Object, now_ms: int, answers: Callable[[str], bool]) -> None:
        """`answers`: whether a revision is there and may be asked."""
        self._known, self._now_ms, self._duration_ms = read(route), now_ms, duration_ms(route)
        self._answers = answers
        traffic = status(route).get("traffic") or ()
        passed = {name for each in self._known.values() for name, _ in each.shares}
        # The revision that a target led to before, where no rollout says it.
        self._before = {
            str(each.get("tag") or ""): (str(each["revisionName"]), int(each.get("percent") or 0))
            for each in traffic
            if each.get("latestRevision") and (each.get("tag") or each["revisionName"] not in passed)
        }
        self.rollouts: dict[str, Rollout] = {}
        self.next_ms: int | None = None

    def targets(self, target: Object) -> list[Object]:
        """A target as it is resolved, in so many parts as its requests are split into."""
        percent, name, tag = int(target.get("percent") or 0), target["revisionName"], target.get("tag") or ""
        if not (target.get("latestRevision") and percent and self._duration_ms):
            return [target]
        rollout = self._rollout(tag, name, percent)
        if rollout is None:
            return [target]
        *old, (_, new) = rollout.split(percent, self._now_ms, self._duration_ms)
        if not old:
            return [target]
        self.rollouts[tag] = rollout
        next_ms = rollout.next_ms(percent, self._now_ms, self._duration_ms)
        self.next_ms = min(next_ms, self.next_ms or next_ms)
        before = [{"revisionName": each, "latestRevision": True, "percent": part} for each, part in old]
        return [*before, {**target, "percent": new}]

    def _rollout(self, tag: str, name: str, percent: int) -> Rollout | None:
        known = self._known.get(tag)
        if known is not None and known.to == name:
            shares = tuple(each for each in known.shares if self._answers(each[0]))
            return replace(known, shares=shares)
        if known is not None:
            shares = known.split(percent, self._now_ms, self._duration_ms)
        elif tag in self._before and self._before[tag][0] != name and self._before[tag][1]:
            shares = (self._before[tag],)
        else:
            return None
        shares = tuple(each for each in shares if each[0] != name and self._answers(each[0]))
        return Rollout(name, shares, self._now_ms)
