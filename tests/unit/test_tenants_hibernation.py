"""Clusters that nobody uses leave memory, and nobody who asks notices."""

import pytest
from support.world import AGENT, World, agent, pod, tell

from walras.core.errors import Invalid
from walras.kube.access.authoriser import Authoriser
from walras.kube.access.words import Attributes
from walras.kube.context import Identity
from walras.kube.hub import View
from walras.tenants import hibernation
from walras.tenants.hibernation import DEFAULT_AFTER_MS, SWEEP_MS, after_ms

NAP = 60
AGENTS = "agents.walras.dev"


async def nap(world: World, after: str = f"{NAP}s", name: str = AGENT) -> None:
    """An agent whose cluster may sleep after a minute, looked at again and again for two."""
    plane = {"hibernateAfter": after}
    await world.api.edit("fleet", AGENTS, "", name, lambda it: it["spec"].update(controlPlane=plane))
    await wait(world)


async def wait(world: World) -> None:
    await world.settle()
    for _ in range(2 * NAP * 1000 // SWEEP_MS):
        await world.later(SWEEP_MS / 1000)


def test_a_cluster_that_nobody_uses_sleeps_and_wakes_for_the_first_who_asks() -> None:
    async def story(world: World) -> None:
        await world.create("configmaps", {"metadata": {"name": "kept"}, "data": {"k": "v"}})
        before = world.api.get(AGENT, "configmaps", "default", "kept")
        revision = world.api.revision(AGENT)
        await nap(world)
        assert world.api.is_asleep(AGENT)
        assert world.api.revision(AGENT) == revision
        assert world.api.get(AGENT, "configmaps", "default", "kept") == before
        assert not world.api.is_asleep(AGENT)
        await world.settle()
        assert world.api.revision(AGENT) == revision, "to wake changes nothing"

    tell(story)


def test_a_watch_does_not_keep_its_cluster_awake_and_hears_of_what_wakes_it() -> None:
    async def story(world: World) -> None:

        watch = world.api.watch(View(AGENT, "configmaps", "default"))
        await nap(world)
        assert world.api.is_asleep(AGENT)
        late = world.api.watch(View(AGENT, "configmaps", "default"), world.api.revision(AGENT))
        assert world.api.is_asleep(AGENT), "to watch from now on asks for no object"
        await world.create("configmaps", {"metadata": {"name": "new"}})
        for each in (watch, late):
            event = each.ready()
            assert event is not None
            kind, obj = event
            assert (kind, obj["metadata"]["name"]) == ("ADDED", "new")

    tell(story)


def test_a_cluster_sleeps_only_once_its_pods_have_ended() -> None:
    async def story(world: World) -> None:
        made = await world.create("pods", pod("p"))
        await world.settle()
        await nap(world)
        assert not world.api.is_asleep(AGENT)
        await world.run_pod(made)
        await wait(world)
        assert not world.api.is_asleep(AGENT)
        await world.end_pod(made)
        await wait(world)
        assert world.events("Scheduled")
        # Its Event has an hour to live, and then somebody has to delete it.
        await world.later(3600)
        await wait(world)
        assert world.api.is_asleep(AGENT)

    tell(story)


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        ("bids.walras.dev", {"metadata": {"name": "b"}, "spec": {}}),
        ("bids.walras.dev", {"metadata": {"name": "b"}, "spec": {}, "status": {"phase": "Refused"}}),
        ("gpuleases.walras.dev", {"metadata": {"name": "l"}, "status": {"phase": "Draining"}}),
        ("nodes", {"metadata": {"name": "lease-1"}}),
    ],
)
def test_a_cluster_with_business_in_the_market_stays_awake(resource: str, obj: dict[str, object]) -> None:
    async def story(world: World) -> None:
        if world.api.registry(AGENT)[resource].namespaced:
            obj["metadata"]["namespace"] = "default"  # type: ignore[index]
        await world.api.create(AGENT, resource, obj)
        await nap(world)
        assert not world.api.is_asleep(AGENT)

    tell(story)


def test_a_cluster_that_would_take_long_to_wake_stays_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        held = world.api.state.cluster(AGENT).objects
        monkeypatch.setattr(hibernation, "OBJECTS_MAX", held)
        await world.create("configmaps", {"metadata": {"name": "one-more"}})
        await nap(world)
        assert not world.api.is_asleep(AGENT)
        await world.api.delete(AGENT, "configmaps", "default", "one-more")
        await wait(world)
        assert world.api.is_asleep(AGENT)

    tell(story)


def test_controllers_work_on_after_a_sleep_as_before() -> None:
    async def story(world: World) -> None:
        template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("")["spec"]}
        spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}
        await world.create("deployments.apps", {"metadata": {"name": "web"}, "spec": spec})
        await world.settle()
        await world.later(3600)
        await nap(world)
        assert world.api.is_asleep(AGENT)
        await world.api.edit(
            AGENT, "deployments.apps", "default", "web", lambda it: it["spec"].update(replicas=3)
        )
        await world.settle()
        assert len(world.pods()) == 3
        # Its replica set is found by the index of owners, which forgot everything in between.
        assert len(world.api.list(AGENT, "replicasets.apps")) == 1
        await world.api.delete(AGENT, "deployments.apps", "default", "web")
        await world.settle()
        assert world.api.list(AGENT, "replicasets.apps") == []

    tell(story)


def test_an_agent_that_goes_takes_its_sleeping_cluster_along() -> None:
    async def story(world: World) -> None:
        await nap(world)
        assert world.api.is_asleep(AGENT)
        await world.api.delete("fleet", AGENTS, "", AGENT)
        await world.settle()
        assert not world.api.has_cluster(AGENT)
        await world.agent(AGENT)
        assert world.api.get(AGENT, "namespaces", "", "default")

    tell(story)


def test_what_says_something_of_an_agent_does_not_wake_its_cluster() -> None:
    async def story(world: World) -> None:
        await nap(world)
        await world.api.edit(
            "fleet", AGENTS, "", AGENT, lambda it: it["metadata"].update(labels={"team": "search"})
        )
        await world.settle()
        assert world.api.is_asleep(AGENT)

    tell(story)


def test_an_agent_that_never_sleeps_and_one_that_says_nonsense() -> None:
    assert after_ms(agent("a")) == DEFAULT_AFTER_MS
    declared = {"spec": {"controlPlane": {"hibernateAfter": "never"}}}
    assert after_ms(declared) is None
    declared["spec"]["controlPlane"]["hibernateAfter"] = "10m"
    assert after_ms(declared) == 600_000
    declared["spec"]["controlPlane"]["hibernateAfter"] = "soon"
    with pytest.raises(Invalid):
        after_ms(declared)


def test_a_cluster_that_is_told_never_to_sleep_does_not() -> None:
    async def story(world: World) -> None:
        await nap(world, "never")
        await world.later(2 * 3600)
        await wait(world)
        assert not world.api.is_asleep(AGENT)

    tell(story)


def test_a_binding_of_the_clusters_own_holds_through_a_sleep() -> None:
    async def story(world: World) -> None:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
        role = {"metadata": {"name": "reader"}, "rules": rules}
        subject = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"kind": "ClusterRole", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
        await world.api.create(AGENT, "clusterroles.rbac.authorization.k8s.io", role)
        binding = {"metadata": {"name": "jane"}, "subjects": [subject], "roleRef": reference}
        await world.api.create(AGENT, "clusterrolebindings.rbac.authorization.k8s.io", binding)
        access = Authoriser(world.api)
        access.watch()
        jane, asked = Identity("jane", (), AGENT), Attributes("get", resource="pods")
        assert access.decide(jane, AGENT, asked).allowed
        await nap(world)
        assert world.api.is_asleep(AGENT)
        assert access.decide(jane, AGENT, asked).allowed
        await nap(world)
        await world.api.delete(AGENT, "clusterrolebindings.rbac.authorization.k8s.io", "", "jane")
        assert not access.decide(jane, AGENT, asked).allowed
        assert not access.bindings.kept()

    tell(story)
