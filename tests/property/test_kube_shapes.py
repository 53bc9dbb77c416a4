"""Whoever makes an object owns the same fields, whether or not the server remembers others of its shape."""

import copy
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from walras.kube import managed
from walras.kube.registry_builtin import for_agents

Object = dict[str, Any]
text = st.sampled_from(("", "a", "b"))
number = st.sampled_from((0, 1, 2))
flag = st.booleans()
labels = st.dictionaries(st.sampled_from(("x", "y")), text, max_size=2)


def some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """Any of the fields."""
    return st.fixed_dictionaries({}, optional=parts)


metadata = some(labels=labels, annotations=labels, finalizers=st.lists(text, max_size=2))
port = some(name=text, containerPort=number, protocol=st.sampled_from(("TCP", "UDP")))
container = some(
    name=text, image=text, ports=st.lists(port, max_size=2),
    env=st.lists(some(name=text, value=text), max_size=2),
    stdin=flag, resources=some(limits=labels),
)  # fmt: skip
pod = some(containers=st.lists(container, max_size=2), hostNetwork=flag, priority=number, nodeSelector=labels)
deployment = some(
    replicas=number, paused=flag, template=some(metadata=metadata, spec=pod), strategy=some(type=text)
)
package = some(pool=text, devices=number, memory=text)
bid = some(latency=labels, packages=st.lists(package, max_size=2))
KINDS = {
    "configmaps": some(metadata=metadata, data=labels, immutable=flag),
    "pods": some(metadata=metadata, spec=pod),
    "deployments.apps": some(metadata=metadata, spec=deployment),
    "bids.walras.dev": some(metadata=metadata, spec=bid),
}


def varied(value: Any, chance: random.Random) -> Any:
    """The same with other values in it."""
    if isinstance(value, dict):
        return {key: varied(each, chance) for key, each in value.items()}
    if isinstance(value, list):
        return [varied(each, chance) for each in value]
    if isinstance(value, bool):
        return chance.random() < 0.5
    return chance.choice((0, 1, 2) if isinstance(value, int) else ("", "a", "b"))


@given(st.data(), st.sampled_from(sorted(KINDS)), st.randoms(use_true_random=False))
def test_what_a_maker_owns_does_not_depend_on_who_was_there_before(
    data: st.DataObject, kind: str, chance: random.Random
) -> None:
    first = data.draw(KINDS[kind])
    objs = [first, *(varied(first, chance) for _ in range(4))]
    resource = for_agents()[kind]
    told: list[Any] = []
    alone: list[Any] = []
    for together, found in ((True, told), (False, alone)):
        managed._FIRST.clear()
        for obj in copy.deepcopy(objs):
            obj.setdefault("metadata", {}).update(name="n", uid="u", creationTimestamp="2026-01-01T00:00:00Z")
            managed.record(resource, None, obj, manager="m", now="2026-01-01T00:00:00Z")
            found.append(copy.deepcopy(obj["metadata"].get("managedFields")))
            if not together:
                managed._FIRST.clear()
    assert told == alone
