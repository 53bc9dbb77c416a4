"""Other limits for groups that are in use: outer groups grow first and shrink last, as KEP-1287 has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from walras.runtimes.base import Grouped, Limits, Process, Resize, ResizeError
from walras.runtimes.cgroups import GroupPath, Groups

_Parts = Mapping[str, tuple[Process, Resize]]


def missing(groups: Groups | None) -> str:
    """Why limits of programs that run cannot be changed, in words; "" where they can."""
    held = groups.controllers if groups is not None else frozenset()
    lacking = [name for name in ("cpu", "memory") if name not in held]
    if not lacking:
        return ""
    return f"this machine lets the server use no control groups for {' and '.join(lacking)}"


def resize(groups: Groups, pod: GroupPath, whole: Resize, parts: _Parts) -> None:
    """Changes the pod's group and those of its containers. Raises ResizeError."""
    _check(groups, pod, whole, parts)
    try:
        for of in (_memory, _cpu):
            _apply(groups, pod, of(whole), [(path, of(change)) for _, path, change in _grouped(parts)])
    except OSError as error:
        raise ResizeError(f"failed to set cgroup config: {error.strerror or error}") from error


def _apply(groups: Groups, pod: GroupPath, whole: Resize, parts: list[tuple[GroupPath, Resize]]) -> None:
    """One resource: shrinking containers make room for those that grow."""
    if _grows(whole):
        groups.limit(pod, whole.to)
    for path, change in sorted(parts, key=lambda each: _grows(each[1])):
        # An engine has groups of its own in those that it is given.
        nested = [path, *groups.below(path)]
        for each in nested if _grows(change) else reversed(nested):
            groups.limit(each, change.to)
    if not _grows(whole):
        groups.limit(pod, whole.to)


def _grouped(parts: _Parts) -> Iterator[tuple[str, GroupPath, Resize]]:
    for name, (process, change) in parts.items():
        if isinstance(process, Grouped):
            yield name, process.path, change


def _check(groups: Groups, pod: GroupPath, whole: Resize, parts: _Parts) -> None:
    """Raises ResizeError for a memory limit below what is in use, before anything is changed."""
    wrong = []
    if (limit := _less_memory(whole)) and (used := groups.memory_bytes(pod)) >= limit:
        wrong.append(f"attempting to set pod memory limit ({limit}) below current usage ({used})")
    for name, path, change in _grouped(parts):
        if (limit := _less_memory(change)) and (used := groups.memory_bytes(path)) >= limit:
            said = f'attempting to set container "{name}" memory limit ({limit}) below current usage ({used})'
            wrong.append(said)
    if wrong:
        raise ResizeError(", ".join(wrong))


def _less_memory(change: Resize) -> int:
    """The limit, where it is lower than before; else 0."""
    to, was = change.to.memory_bytes, change.was.memory_bytes
    return to if to is not None and (was is None or to < was) else 0


def _memory(change: Resize) -> Resize:
    return Resize(Limits(memory_bytes=change.was.memory_bytes), Limits(memory_bytes=change.to.memory_bytes))


def _cpu(change: Resize) -> Resize:
    return Resize(*(replace(each, memory_bytes=None, pids=None) for each in (change.was, change.to)))


def _grows(change: Resize) -> bool:
    """Whether either limit is higher than before; none at all is the highest."""
    pairs = (
        (change.was.cpu_milli, change.to.cpu_milli), (change.was.memory_bytes, change.to.memory_bytes),
    )  # fmt: skip
    return any(was is not None and (to is None or to > was) for was, to in pairs)
