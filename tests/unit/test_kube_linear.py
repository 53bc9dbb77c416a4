"""What is checked of an object costs in proportion to it, however it repeats itself: one agent's object must
not hold the loop that all of them share."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from walras.kube import advice, defaults, fields, preparing, validation, writing
from walras.kube.context import Context, Identity
from walras.kube.registry_builtin import for_agents
from walras.kube.schema import Schema
from walras.kube.serve import answers
from walras.kube.validation import Faults, structural
from walras.kube.validation.faults import TOLD_MAX

Object = dict[str, Any]
# A piece of work of some size, made of values that say when they are compared.
Made = Callable[["Work"], Callable[[], object]]
FEW, GROWTH = 300, 4
# Proportion, and what sorting adds to it; the square of the growth is far above.
ALLOWED = 1.4 * GROWTH


class Work:
    """Calls, and comparisons of values, of a piece of work."""

    def __init__(self) -> None:
        self.done = 0

    def watch(self, value: Any) -> Any:
        """The same value, of strings and numbers that say when they are compared."""
        work = self

        class Text(str):
            __slots__ = ()

            def __eq__(self, other: object) -> bool:
                work.done += 1
                return str.__eq__(self, other)

            __hash__ = str.__hash__

        class Number(int):
            def __eq__(self, other: object) -> bool:
                work.done += 1
                return int.__eq__(self, other)

            __hash__ = int.__hash__

        def watched(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: watched(each) for key, each in value.items()}
            if isinstance(value, list):
                return [watched(each) for each in value]
            if isinstance(value, str):
                return Text(value)
            return Number(value) if type(value) is int else value

        return watched(value)

    def of(self, work: Callable[[], object]) -> int:
        def count(*_: object) -> None:
            self.done += 1

        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)
        return self.done


def grows(make: Callable[[int], Made]) -> float:
    few, many = Work(), Work()
    before = few.of(make(FEW)(few))
    return many.of(make(FEW * GROWTH)(many)) / before


def pod(**spec: Any) -> Object:
    containers = [{"name": "c", "image": "i"}]
    return {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": containers, **spec}}


def container(**given: Any) -> Object:
    return pod(containers=[{"name": "c", "image": "i", **given}])


def job(values: list[int]) -> Object:
    rules = [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": values}}]
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    spec = {"podFailurePolicy": {"rules": rules}, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}


def affinity(n: int) -> Object:
    expressions = [{"key": f"k{i}", "operator": "Exists"} for i in range(n)]
    term = {
        "topologyKey": "a",
        "labelSelector": {"matchExpressions": expressions},
        "matchLabelKeys": [f"k{i}" for i in range(n)],
        "mismatchLabelKeys": [f"m{i}" for i in range(n)],
    }
    return pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


def definition(n: int) -> Object:
    schema = {"openAPIV3Schema": {"type": "object"}}
    versions = [{"name": f"v{i + 1}", "served": True, "storage": not i, "schema": schema} for i in range(n)]
    names = {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"}
    spec = {"group": "x.io", "scope": "Namespaced", "names": names, "versions": versions}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}


def addresses(n: int) -> Object:
    given = {"containerPort": 1, "hostPort": 1}
    return container(ports=[{**given, "hostIP": f"10.0.{i >> 8}.{i & 255}"} for i in range(n)])


def paths(n: int) -> Object:
    items = [{"key": f"k{i}", "path": f"p/{i}"} for i in range(n)]
    return pod(volumes=[{"name": "v", "configMap": {"name": "a", "items": items}}])


def projected(n: int) -> Object:
    items = [[{"key": f"k{i}", "path": f"p{i}"}] for i in range(n)]
    sources = [{"configMap": {"name": "a", "items": each}} for each in items]
    return pod(volumes=[{"name": "v", "projected": {"sources": sources}}])


def tolerations(n: int) -> Object:
    return pod(tolerations=[{"key": f"k{i}", "operator": "Exists"} for i in range(n)])


LISTS: dict[str, tuple[str, Callable[[int], Object]]] = {
    "containers": ("pods", lambda n: pod(containers=[{"name": f"c{i}", "image": "i"} for i in range(n)])),
    "same containers": ("pods", lambda n: pod(containers=[{"name": "c", "image": "i"}] * n)),
    "variables": ("pods", lambda n: container(env=[{"name": "E", "value": "v"}] * n)),
    "ports": ("pods", lambda n: container(ports=[{"containerPort": 1 + i} for i in range(n)])),
    "same ports": ("pods", lambda n: container(ports=[{"containerPort": 1}] * n)),
    "host ports": (
        "pods",
        lambda n: container(ports=[{"containerPort": 1, "hostPort": 1 + i} for i in range(n)]),
    ),
    "addresses of a port": ("pods", addresses),
    "tolerations": ("pods", tolerations),
    "volumes": ("pods", lambda n: pod(volumes=[{"name": f"v{i}", "emptyDir": {}} for i in range(n)])),
    "mounts": (
        "pods",
        lambda n: container(volumeMounts=[{"name": f"v{i}", "mountPath": f"/{i}"} for i in range(n)]),
    ),
    "projected paths": ("pods", projected),
    "nested paths": ("pods", paths),
    "spreading": (
        "pods",
        lambda n: pod(
            topologySpreadConstraints=[
                {"maxSkew": 1, "topologyKey": f"k{i}", "whenUnsatisfiable": "DoNotSchedule"} for i in range(n)
            ]
        ),
    ),
    "label keys": ("pods", affinity),
    "gates": ("pods", lambda n: pod(schedulingGates=[{"name": f"a.b/{i}"} for i in range(n)])),
    "aliases": ("pods", lambda n: pod(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a"]}] * n)),
    "claims of devices": (
        "pods",
        lambda n: pod(resourceClaims=[{"name": f"c{i}", "resourceClaimName": "a"} for i in range(n)]),
    ),
    "claims that nothing declares": (
        "pods",
        lambda n: container(resources={"claims": [{"name": f"c{i}"} for i in range(n)]}),
    ),
    "parts of claims": (
        "pods",
        lambda n: container(resources={"claims": [{"name": "c", "request": f"r{i}"} for i in range(n)]}),
    ),
    "exit codes": ("jobs", lambda n: job([1 + i for i in range(n)])),
    "versions": ("customresourcedefinitions", definition),
}


def checks(plural: str, manifest: Object, *, update: bool = False) -> Made:
    resource = next(each for each in for_agents() if each.plural == plural)
    name = "foos.x.io" if plural == "customresourcedefinitions" else "x"
    obj, _ = fields.decode(resource.schema, {**manifest, "metadata": {"name": name, "uid": "u"}})
    defaults.apply(resource, obj)
    preparing.prepare(resource, obj, None)

    def made(work: Work) -> Callable[[], object]:
        new, old = work.watch(obj), work.watch(obj) if update else None
        if old is not None:
            old["spec"]["x"] = "y"

        def both() -> None:
            validation.validate(resource, new, old)
            advice.warnings(resource, new, old, "")

        return both

    return made


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_many_is_checked_in_proportion(name: str) -> None:
    plural, make = LISTS[name]
    assert grows(lambda n: checks(plural, make(n))) <= ALLOWED


@pytest.mark.parametrize("given", [{"key": "k", "tolerationSeconds": 1}, {"operator": "Exists"}])
def test_tolerations_of_a_change_are_compared_in_proportion(given: Object) -> None:
    def make(n: int) -> Made:
        every = [{"effect": "NoExecute", **given, "key": f"k{i}"} for i in range(n)]
        return checks("pods", pod(tolerations=every), update=True)

    assert grows(make) <= ALLOWED


SET = {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}
UNIQUE = {"type": "array", "uniqueItems": True, "items": {"type": "string"}}
MAP = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["a"],
    "items": {"type": "object", "properties": {"a": {"type": "string"}}},
}


@pytest.mark.parametrize(
    ("schema", "make"),
    [
        (lambda value: {"type": "array", "items": {"enum": value}}, lambda n: [f"v{i}" for i in range(n)]),
        (lambda value: {"type": "array", "items": {"enum": value}}, lambda n: list(range(n))),
        (lambda _: SET, lambda n: ["v"] * n),
        (lambda _: UNIQUE, lambda n: [str(i) for i in range(n)]),
        (lambda _: MAP, lambda n: [{"a": str(i)} for i in range(n)]),
    ],
    ids=["enum of strings", "enum of numbers", "set", "unique", "map"],
)
def test_values_of_custom_resources_are_checked_in_proportion(
    schema: Callable[[Any], Object], make: Callable[[int], Any]
) -> None:
    def made(n: int) -> Made:
        def watched(work: Work) -> Callable[[], object]:
            value = work.watch(make(n))
            served = Schema(work.watch(schema(make(n))))
            return lambda: structural.check_value(Faults(), served, value, "spec")

        return watched

    assert grows(made) <= ALLOWED


@pytest.mark.parametrize("same", [False, True])
def test_owners_that_repeat_are_found_in_proportion(same: bool) -> None:
    def make(n: int) -> Made:
        owners = [
            {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u" if same else f"u{i}"} for i in range(n)
        ]

        def made(work: Work) -> Callable[[], object]:
            class Owner(dict[str, str]):
                def __eq__(self, other: object) -> bool:
                    work.done += 1
                    return dict.__eq__(self, other)

                __hash__ = None

            metadata = {"ownerReferences": [Owner(each) for each in owners]}
            ctx = Context(Identity("a"), "one")
            return lambda: writing.drop_repeated_owners(ctx, metadata)

        return made

    assert grows(make) <= ALLOWED


def test_what_is_told_of_one_object_is_bounded_and_begins_with_the_first_fault() -> None:
    faults = Faults()
    for index in range(100_000):
        faults.required(f"spec.items[{index}]", "x" * 100)
    assert faults[0].field == "spec.items[0]"
    assert sum(len(each.message) for each in faults) <= TOLD_MAX


def test_an_object_of_a_thousand_collisions_is_warned_of_a_bounded_number_of_times() -> None:
    resource = next(each for each in for_agents() if each.plural == "pods")
    manifest = container(ports=[{"containerPort": 1}] * 1000)
    obj, _ = fields.decode(resource.schema, {**manifest, "metadata": {"name": "x"}})
    assert len(advice.warnings(resource, obj, None, "")) == advice.WARNINGS_MAX


def test_a_path_of_many_parts_takes_memory_in_proportion() -> None:
    resource = next(each for each in for_agents() if each.plural == "pods")
    parts = 20_000
    files = {"name": "m", "items": [{"key": "k", "path": "/".join("a" * parts)}]}
    manifest = container()
    manifest["spec"]["volumes"] = [{"name": "v", "configMap": files}]
    obj = {**manifest, "metadata": {"name": "x"}}
    tracemalloc.start()
    try:
        assert advice.warnings(resource, obj, None, "") == []
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 64 * parts


def test_warnings_of_an_answer_are_cut_short_where_they_are_too_much() -> None:
    few = answers.warnings(["a" * 300, "b", "a" * 300])
    assert few == (answers.warning("a" * 300), answers.warning("b"))
    many = answers.warnings("x" * 300 + str(index) for index in range(100))
    assert [len(text) for _, text in many] == [len('299 - ""') + 256] * 16
