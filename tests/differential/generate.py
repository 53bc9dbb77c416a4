"""Scenarios from a seed: some requests about a few objects of one or two kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from differential.asking import ACCEPTS, WATCHED, list_query, watch_query, write_query
from differential.kinds import ACTS, KINDS, Kind, Object
from differential.mutations import BROKEN, CHANGES, HARMLESS, doubled, mutated
from differential.patches import apply_patch, json_patch, merge_patch, strategic_patch
from differential.steps import JSON, SELF, TURN, Scenario, Step

STEPS_MAX: Final = 14
_NAMES: Final = ("a", "b", "c")
_MEDIA: Final = (
    "application/yaml", "text/plain", "application/xml", "", "application/cbor",
    "application/merge-patch+json", "application/json; charset=utf-8",
)  # fmt: skip
_YAML: Final = (
    "a: b: c", "- a", "a", "a: &x 1\nb: *x", "%", "kind: ConfigMap\nmetadata:\n  name: a", "a: 2020-01-01",
    "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: b\n  a: c\ndata:\n  \"x\": y",
)  # fmt: skip
_PATCHES: Final = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip
_DELETE: Final[tuple[Object, ...]] = (
    {}, {"gracePeriodSeconds": 0}, {"gracePeriodSeconds": 5}, {"gracePeriodSeconds": -1},
    {"propagationPolicy": "Foreground"}, {"propagationPolicy": "Orphan"}, {"propagationPolicy": "Background"},
    {"propagationPolicy": "Sideways"}, {"orphanDependents": True}, {"orphanDependents": False},
    {"orphanDependents": True, "propagationPolicy": "Orphan"}, {"dryRun": ["All"]}, {"dryRun": ["Some"]},
    {"preconditions": {"uid": "11111111-2222-3333-4444-555555555555"}}, {"bogus": 1},
    {"preconditions": {"resourceVersion": "1"}}, {"kind": "DeleteOptions", "apiVersion": "v1"},
    {"kind": "Pod", "apiVersion": "v1"}, {"gracePeriodSeconds": "x"}, {"preconditions": 3},
)  # fmt: skip


def scenario(seed: str) -> Scenario:
    """The requests of a seed, always the same ones."""
    return _Maker(Random(seed)).scenario(seed)


class _Maker:
    """One scenario in the making."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        weights = [kind.weight for kind in KINDS]
        self.kinds = rng.choices(KINDS, weights, k=2 if rng.random() < 0.2 else 1)
        self.steps: list[Step] = []
        # Who read last what several wrote at once, in any order; 0 for nobody.
        self.settled = 0
        # The last steps that wrote an object, by kind and short name.
        self.wrote: dict[tuple[str, str], list[int]] = {}

    def scenario(self, seed: str) -> Scenario:
        for _ in range(self.rng.randint(3, STEPS_MAX)):
            kind = self.rng.choice(self.kinds)
            known = [name for name in _NAMES if (kind.plural, name) in self.wrote]
            if not known and self.rng.random() < 0.8:
                self.create(kind)
            else:
                self.pick()(kind)
        return Scenario(seed, tuple(self.steps))

    def pick(self) -> Callable[[Kind], None]:
        ways = {
            self.create: 10, self.get: 6, self.list: 12, self.watch: 4, self.update: 12, self.patch: 26,
            self.apply: 14, self.sub: 12, self.delete: 9, self.delete_collection: 4, self.broken: 5,
            self.wrong: 3, self.race: 5, self.act: 2,
        }  # fmt: skip
        return self.rng.choices([*ways], [*ways.values()])[0]

    def add(self, kind: Kind, verb: str, method: str, path: str, **parts: Any) -> Step:
        step = Step(len(self.steps) + 1, method, path, f"{verb} {kind.plural}", **parts)
        self.steps.append(step)
        return step

    def name(self, kind: Kind) -> str:
        """Mostly of something that there is."""
        known = [name for name in _NAMES if (kind.plural, name) in self.wrote]
        return self.rng.choice(known) if known and self.rng.random() < 0.9 else self.rng.choice(_NAMES)

    def path(self, kind: Kind, name: str) -> str:
        return f"{kind.collection}/{kind.name(name)}"

    def note(self, kind: Kind, name: str, step: Step) -> None:
        self.wrote.setdefault((kind.plural, name), []).append(step.id)

    def past(self, kind: Kind, name: str) -> int | None:
        """A step that wrote the object, mostly the last one."""
        steps = self.wrote.get((kind.plural, name), [])
        if not steps:
            return None
        return steps[-1] if self.rng.random() < 0.8 else self.rng.choice(steps)

    # Verbs

    def create(self, kind: Kind) -> None:
        name = self.rng.choice(_NAMES)
        _, body = mutated(self.rng, kind.make(self.rng, name), 0.35)
        step = self.add(kind, "create", "POST", kind.collection, body=body, query=write_query(self.rng))
        self.note(kind, name, step)

    def get(self, kind: Kind) -> None:
        rng, query = self.rng, []
        if rng.random() < 0.1:
            query.append(("resourceVersion", rng.choice(["0", "1", "abc", "999999999"])))
        accept = rng.choice(ACCEPTS) if rng.random() < 0.5 else JSON
        self.add(kind, "get", "GET", self.path(kind, self.name(kind)), query=tuple(query), accept=accept)

    def list(self, kind: Kind) -> None:
        rng, path, query = self.rng, kind.collection, list_query(self.rng, self.name(kind), len(self.steps))
        if rng.random() < 0.3 or not kind.namespaced:
            # How many there are behind a page depends on what else goes on.
            kept = [pair for pair in query if pair[0] not in ("limit", "continue")]
            path, query = kind.everywhere, [*kept, ("labelSelector", f"scenario={SELF}")]
        accept = rng.choice(ACCEPTS) if rng.random() < 0.25 else JSON
        self.add(kind, "list", "GET", path, query=tuple(dict(query).items()), accept=accept)

    def watch(self, kind: Kind) -> None:
        rng = self.rng
        if not self.steps:
            return
        everywhere = not kind.namespaced or rng.random() < 0.2
        path, query = (
            kind.everywhere if everywhere else kind.collection,
            watch_query(rng, self.settled or 1, self.settled or self.steps[-1].id),
        )
        if rng.random() < 0.2:
            query["fieldSelector"] = f"metadata.name={kind.name(rng.choice(_NAMES))}"
        elif rng.random() < 0.3 and kind.plural == "gadgets":
            query["fieldSelector"] = rng.choice(["spec.colour=red", "spec.colour!=red"])
        if everywhere:
            query["labelSelector"] = f"scenario={SELF}"
        accept = rng.choice(WATCHED) if rng.random() < 0.3 else JSON
        self.add(kind, "watch", "GET", path, query=tuple(query.items()), accept=accept, watch=True)

    def update(self, kind: Kind) -> None:
        rng, name = self.rng, self.name(kind)
        read = self.past(kind, name)
        _, change = rng.choice(HARMLESS) if rng.random() < 0.75 else rng.choice(CHANGES)
        query = write_query(rng)
        if read is not None and rng.random() < 0.7:
            step = self.add(kind, "update", "PUT", self.path(kind, name), body=change, read=read, query=query)
        else:
            body = kind.make(rng, name)
            if read is not None and rng.random() < 0.6:
                body["metadata"]["resourceVersion"] = f"$rv:{read}$"
            _, body = mutated(rng, body, 0.25)
            step = self.add(kind, "update", "PUT", self.path(kind, name), body=body, query=query)
        self.note(kind, name, step)

    def patch(self, kind: Kind) -> None:
        rng, name = self.rng, self.name(kind)
        self._patch(kind, name, rng.choice([json_patch, merge_patch, merge_patch, strategic_patch]))

    def _patch(self, kind: Kind, name: str, make: Callable[..., Any], sub: str = "") -> None:
        media, body = make(self.rng, kind, name, self.past(kind, name))
        verb = f"{make.__name__.replace('_', '-')}"
        path = self.path(kind, name) + (f"/{sub}" if sub else "")
        query = write_query(self.rng, apply=make is apply_patch)
        step = self.add(kind, verb, "PATCH", path, body=body, content_type=media, query=query)
        if sub:
            self.steps[-1] = step.changed(what=f"{verb} {kind.plural}/{sub}")
        if not sub or sub == "status":
            self.note(kind, name, step)

    def apply(self, kind: Kind) -> None:
        name = self.name(kind)
        self._patch(kind, name, apply_patch)

    def sub(self, kind: Kind) -> None:
        rng, name = self.rng, self.name(kind)
        if not kind.subresources:
            self.patch(kind)
            return
        sub = rng.choice(kind.subresources)
        makers = [json_patch, merge_patch, strategic_patch, apply_patch]
        if rng.random() < 0.5:
            self._patch(kind, name, rng.choice(makers), sub)
            return
        path, what = f"{self.path(kind, name)}/{sub}", f"{kind.plural}/{sub}"
        read = self.past(kind, name)
        if rng.random() < 0.4 or read is None:
            step = self.add(kind, "get", "GET", path, accept=rng.choice(ACCEPTS))
            self.steps[-1] = step.changed(what=f"get {what}")
            return
        if sub == "scale":
            scale: Object = {"apiVersion": "autoscaling/v1", "kind": "Scale",
                             "metadata": {"name": kind.name(name), "namespace": SELF},
                             "spec": {"replicas": rng.choice([0, 1, 4, -1, "x", 1000])}}  # fmt: skip
            _, scale = mutated(rng, scale, 0.3)
            self.add(kind, "update", "PUT", path, body=scale, query=write_query(rng))
        else:
            _, change = rng.choice(HARMLESS) if rng.random() < 0.8 else rng.choice(CHANGES)
            self.add(kind, "update", "PUT", path, body=change, read=read, query=write_query(rng))
        self.steps[-1] = self.steps[-1].changed(what=f"update {what}")

    def delete(self, kind: Kind) -> None:
        rng, name = self.rng, self.name(kind)
        options = rng.choice(_DELETE)
        read = self.past(kind, name)
        if rng.random() < 0.15 and read is not None:
            options = {"preconditions": {"uid": f"$uid:{read}$", "resourceVersion": f"$rv:{read}$"}}
        if rng.random() < 0.3:
            query = tuple((key, str(value)) for key, value in options.items() if isinstance(value, str | int))
            self.add(kind, "delete", "DELETE", self.path(kind, name), query=query)
            return
        body = options if rng.random() < 0.7 else None
        self.add(kind, "delete", "DELETE", self.path(kind, name), body=body)

    def delete_collection(self, kind: Kind) -> None:
        rng = self.rng
        query = [("labelSelector", rng.choice(["app=a", "app notin (b)", "x", f"scenario={SELF}"]))]
        if not kind.namespaced:
            query = [("labelSelector", f"scenario={SELF}")]
        elif rng.random() < 0.3:
            query = [("fieldSelector", f"metadata.name={rng.choice(_NAMES)}")]
        elif rng.random() < 0.2:
            query = []
        body = rng.choice([None, None, *_DELETE[:8]])
        if rng.random() < 0.2:
            query.append(("dryRun", "All"))
        self.add(kind, "deletecollection", "DELETE", kind.collection, query=tuple(query), body=body)

    def broken(self, kind: Kind) -> None:
        """Bodies that are no objects, in JSON and YAML, and content types that are not what is inside."""
        rng, name = self.rng, self.rng.choice(_NAMES)
        body: Any
        match rng.randint(0, 4):
            case 0 | 1:
                body, media = rng.choice(BROKEN)[1], JSON
            case 2:
                body, media = doubled(rng, kind.make(rng, name)), JSON
            case 3:
                body, media = json.dumps(kind.make(rng, name), indent=1), rng.choice(_MEDIA)
            case _:
                body, media = rng.choice(_YAML), "application/yaml"
        query = write_query(rng)
        if rng.random() < 0.6:
            self.add(
                kind, "create-broken", "POST", kind.collection, body=body, content_type=media, query=query
            )
            return
        media = rng.choice([*_PATCHES, media])
        path = self.path(kind, self.name(kind))
        self.add(kind, "patch-broken", "PATCH", path, body=body, content_type=media, query=query)

    def wrong(self, kind: Kind) -> None:
        """Methods and paths that are not served, and values that no parameter has."""
        rng, name = self.rng, self.name(kind)
        one, prefix = self.path(kind, name), kind.prefix
        method, path = rng.choice([
            ("POST", one), ("PUT", kind.collection), ("PATCH", kind.collection), ("POST", f"{one}/status"),
            ("GET", f"{one}/bogus"), ("PUT", f"{one}/bogus"), ("DELETE", f"{one}/status"),
            ("GET", f"{prefix}/bogus"), ("POST", f"{prefix}/namespaces/{SELF}/bogus"),
            ("DELETE", kind.everywhere if kind.namespaced else one),
            ("POST", kind.everywhere), ("GET", f"{prefix}9/{kind.plural}"),
            ("GET", f"/apis/no.such/v1/{kind.plural}"),
            ("GET", f"{prefix}/namespaces/{SELF}/{kind.plural}/{name}"), ("OPTIONS", one), ("HEAD", one),
            ("GET", f"{prefix}/namespaces/absent-{SELF}/{kind.plural}"),
            ("POST", f"{prefix}/namespaces/absent-{SELF}/{kind.plural}"),
            ("GET", f"{one}/status/more"), ("GET", f"{one}/"), ("GET", f"{kind.collection}/%2e%2e"),
        ])  # fmt: skip
        body = kind.make(rng, name) if method in ("POST", "PUT", "PATCH") else None
        media = "application/merge-patch+json" if method == "PATCH" else JSON
        self.add(kind, f"wrong-{method}", method, path, body=body, content_type=media)

    def race(self, kind: Kind) -> None:
        """The same write several times at once: what comes of each is the same, whoever is first."""
        rng, name = self.rng, self.name(kind)
        read = self.past(kind, name)
        if read is None or rng.random() < 0.4:
            body = kind.make(rng, name)
            self.add(kind, "race-create", "POST", kind.collection, body=body, times=4)
        elif rng.random() < 0.5:
            label = {"metadata": {"labels": {"raced": "yes", "scenario": SELF}}}
            self.add(kind, "race-update", "PUT", self.path(kind, name), body=label, read=read, times=4)
        elif rng.random() < 0.3:
            self.add(kind, "race-delete", "DELETE", self.path(kind, name), times=4)
        else:
            self.writers(kind, name)

    def writers(self, kind: Kind, name: str) -> None:
        """Several who change parts of their own at once: all of them get through, and all of it is there."""
        label = {"metadata": {"labels": {f"writer-{TURN}": "yes"}}}
        merge, media = {"content_type": "application/merge-patch+json"}, _PATCHES[3]
        path, query = self.path(kind, name), (("fieldManager", f"writer-{TURN}"),)
        # Whose the map of the labels is, is settled before.
        raced = {"metadata": {"labels": {"raced": "yes"}}}
        self.add(kind, "merge-patch", "PATCH", path, body=raced, **merge)
        if self.rng.random() < 0.5:
            self.add(kind, "race-patch", "PATCH", path, body=label, query=query, times=4, **merge)
        else:
            whole = {"apiVersion": kind.api_version, "kind": kind.kind, **label}
            self.add(kind, "race-apply", "PATCH", path, body=whole, query=query, times=4, content_type=media)
        self.settled = self.add(kind, "get", "GET", path).id

    def act(self, kind: Kind) -> None:
        """What is done with an object by way of a subresource that is posted to."""
        if not kind.acts:
            self.sub(kind)
            return
        rng, name = self.rng, self.name(kind)
        act = rng.choice(kind.acts)
        path = f"{self.path(kind, name)}/{act}"
        step = self.add(kind, "act", "POST", path, body=ACTS[act](rng, kind.name(name)))
        self.steps[-1] = step.changed(what=f"act {kind.plural}/{act}")
