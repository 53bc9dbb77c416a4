"""Whatever comes and goes, nodes are never overcommitted and no pod waits for room that is there.

The oracle is plain addition over what the API shows, without the scheduler's cache or its packing: every
lease here is of one device, where a sum is exact.
"""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from support.world import AGENT, Object, World, lease_node, pod, tell

from walras.core.errors import NotFound

CAPACITY = 1000
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), st.sampled_from([100, 250, 400, 600, 1000])),
        st.tuples(st.just("node"), st.sampled_from([250, 500, 1000])),
        st.tuples(st.sampled_from(["end", "delete", "unplug", "cordon", "settle"]), st.integers(0, 9)),
    ),
    max_size=30,
)


def milli(obj: Object) -> int:
    return int(obj["spec"]["containers"][0]["resources"]["limits"]["walras.dev/milligpu"])


def room(world: World) -> dict[str, int]:
    """Free milli-GPU by name of each lease node that is open for pods."""
    free = {
        node["metadata"]["name"]: int(node["status"]["allocatable"]["walras.dev/milligpu"])
        for node in world.api.list(AGENT, "nodes")
        if node["metadata"]["name"] != "base"
    }
    for each in world.pods():
        if each["spec"].get("nodeName") in free and each["status"]["phase"] not in {"Succeeded", "Failed"}:
            free[each["spec"]["nodeName"]] -= milli(each)
    return free


async def step(world: World, number: int, what: str, value: int) -> None:
    pods = world.pods()
    nodes = [node["metadata"]["name"] for node in world.api.list(AGENT, "nodes")]
    nodes.remove("base")
    name = pods[value % len(pods)]["metadata"]["name"] if pods else ""
    node = nodes[value % len(nodes)] if nodes else ""
    match what:
        case "pod":
            await world.create("pods", pod(f"p{number}", limits={"walras.dev/milligpu": str(value)}))
        case "node":
            await world.api.create(AGENT, "nodes", lease_node(f"n{number}", milli=value))
        case "end" if name:
            await world.set_status(pods[value % len(pods)], phase="Succeeded")
        case "delete" if name:
            await world.api.delete(AGENT, "pods", "default", name, grace_seconds=value)
        case "unplug" if node:
            await world.api.delete(AGENT, "nodes", "", node)
        case "cordon" if node:
            await world.api.edit(
                AGENT, "nodes", "", node, lambda it: it["spec"].update(unschedulable=value % 2 == 0)
            )
        case "settle":
            await world.settle()


@settings(max_examples=60, deadline=None)
@given(steps)
def test_nothing_is_overcommitted_and_nothing_fitting_waits(plan: list[tuple[str, int]]) -> None:
    async def story(world: World) -> None:
        for number, (what, value) in enumerate(plan):
            # What it means to touch may be on its way out already.
            with suppress(NotFound):
                await step(world, number, what, value)
            assert all(free >= 0 for free in room(world).values())
        await world.settle()
        free = room(world)
        assert all(left >= 0 for left in free.values())
        closed = {
            node["metadata"]["name"]
            for node in world.api.list(AGENT, "nodes")
            if node["spec"].get("unschedulable")
        }
        widest = max((left for name, left in free.items() if name not in closed), default=0)
        waiting = [
            each
            for each in world.pods()
            if not each["spec"].get("nodeName") and each["status"]["phase"] == "Pending"
        ]
        assert all(milli(each) > widest for each in waiting)

    tell(story)
