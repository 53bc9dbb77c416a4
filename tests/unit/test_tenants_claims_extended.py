"""Extended resources of containers as requests of one claim, and which container gets which of them."""

from typing import Any

from support.devices import device_class

from walras.tenants.claims.extended import extended_of, is_extended

Object = dict[str, Any]

FAST = "example.com/fast"
CLASS = device_class("fast", extendedResourceName=FAST)


def container(name: str, count: int = 0, **said: Any) -> Object:
    resources = {"requests": {FAST: str(count), "cpu": "1"}} if count else {}
    return {"name": name, "resources": resources, **said}


def pod(*containers: Object, init: tuple[Object, ...] = ()) -> Object:
    metadata = {"name": "p", "namespace": "default", "uid": "u"}
    return {"metadata": metadata, "spec": {"containers": list(containers), "initContainers": list(init)}}


def made(found: Object) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """Counts by request, and who has which of them."""
    extended = extended_of(found, lambda: [CLASS], ())
    assert extended is not None
    requests = extended.claim["spec"]["devices"]["requests"]
    assert {each["exactly"]["deviceClassName"] for each in requests} == {"fast"}
    counts = {each["name"]: each["exactly"]["count"] for each in requests}
    return counts, {(each["containerName"], each["requestName"]) for each in extended.mappings}


def test_each_container_has_a_request_of_its_own_named_by_their_places() -> None:
    counts, given = made(pod(container("a", 1), container("b"), container("c", 2)))
    assert counts == {"container-0-request-1": 1, "container-2-request-1": 2}
    assert given == {("a", "container-0-request-1"), ("c", "container-2-request-1")}


def test_init_containers_have_what_the_others_get_later_and_one_request_for_the_rest() -> None:
    init = (container("small", 1), container("large", 5))
    counts, given = made(pod(container("main", 2), init=init))
    assert counts == {"container-1-request-1": 3, "container-2-request-1": 2}
    assert given == {
        ("main", "container-2-request-1"),
        ("small", "container-2-request-1"),
        ("large", "container-2-request-1"),
        ("large", "container-1-request-1"),
    }


def test_sidecars_keep_what_they_have() -> None:
    counts, _ = made(pod(container("main", 1), init=(container("side", 1, restartPolicy="Always"),)))
    assert counts == {"container-0-request-1": 1, "container-1-request-1": 1}


def test_of_two_classes_for_a_resource_the_newer_stands_for_it() -> None:
    def born(name: str, at: str) -> Object:
        found = device_class(name, extendedResourceName=FAST)
        return {**found, "metadata": {"name": name, "creationTimestamp": at}}

    def chosen(*classes: Object) -> str:
        extended = extended_of(pod(container("a", 1)), lambda: classes, ())
        assert extended is not None
        name: str = extended.claim["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"]
        return name

    old, new = born("b", "2026-01-01T00:00:00Z"), born("c", "2026-02-01T00:00:00Z")
    assert chosen(old, new) == chosen(new, old) == "c"
    assert chosen(old, born("a", "2026-01-01T00:00:00Z")) == "a"


def test_what_kubernetes_and_nodes_have_themselves_is_no_extended_resource() -> None:
    assert is_extended(FAST) and is_extended("deviceclass.resource.kubernetes.io/fast")
    for name in ("cpu", "hugepages-2Mi", "kubernetes.io/x", "a.kubernetes.io/x", "nvidia.com/gpu"):
        assert not is_extended(name), name
    assert extended_of(pod(container("a", 1)), lambda: [CLASS], {FAST}) is None
    assert extended_of(pod(container("a", 1)), list, ()) is None
    assert extended_of(pod(container("a")), lambda: [CLASS], ()) is None
