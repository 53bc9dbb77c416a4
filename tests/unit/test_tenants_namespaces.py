"""Namespaces are furnished when they come and emptied when they go."""

from support.world import AGENT, World, condition, job, pod, tell


async def make(world: World, name: str = "lab") -> None:
    await world.create("namespaces", {"metadata": {"name": name}})
    await world.settle()


def test_a_new_namespace_has_an_account_and_the_authority() -> None:
    async def story(world: World) -> None:
        await make(world)
        assert world.api.get(AGENT, "serviceaccounts", "lab", "default")
        assert "ca.crt" in world.api.get(AGENT, "configmaps", "lab", "kube-root-ca.crt")["data"]

    tell(story)


def test_what_every_namespace_has_comes_back() -> None:
    async def story(world: World) -> None:
        await make(world)
        await world.api.delete(AGENT, "serviceaccounts", "lab", "default")
        await world.api.edit(AGENT, "configmaps", "lab", "kube-root-ca.crt", lambda it: it.update(data={}))
        await world.settle()
        assert world.api.get(AGENT, "serviceaccounts", "lab", "default")
        assert "ca.crt" in world.api.get(AGENT, "configmaps", "lab", "kube-root-ca.crt")["data"]
        await world.api.delete(AGENT, "configmaps", "lab", "kube-root-ca.crt")
        await world.settle()
        assert world.api.get(AGENT, "configmaps", "lab", "kube-root-ca.crt")

    tell(story)


def test_a_deleted_namespace_is_emptied_and_goes() -> None:
    async def story(world: World) -> None:
        await make(world)
        await world.create("configmaps", {"metadata": {"name": "x", "namespace": "lab"}})
        training = job()
        training["metadata"]["namespace"] = "lab"
        await world.create("jobs.batch", training)
        await world.create("secrets", {"metadata": {"name": "keep"}})
        await world.settle()
        assert len(world.pods("lab")) == 1 and world.api.list(AGENT, "events", "lab")
        (running,) = world.pods("lab")
        await world.run_pod(running)

        await world.api.delete(AGENT, "namespaces", "", "lab")
        await world.settle()
        left = world.api.get(AGENT, "namespaces", "", "lab")
        assert left["status"]["phase"] == "Terminating"
        assert condition(left, "NamespaceContentRemaining") == "True"
        await world.remove(running)
        assert world.api.find(AGENT, "namespaces", "", "lab") is None
        for resource in world.api.registry(AGENT):
            if resource.namespaced:
                assert world.api.list(AGENT, resource.key, "lab") == []
        assert world.api.get(AGENT, "secrets", "default", "keep")

    tell(story)


def test_a_finalizer_in_it_holds_the_namespace_and_is_named() -> None:
    async def story(world: World) -> None:
        await make(world)
        held = {"metadata": {"name": "x", "namespace": "lab", "finalizers": ["x/hold"]}}
        await world.create("configmaps", held)
        await world.api.delete(AGENT, "namespaces", "", "lab")
        await world.settle()
        left = world.api.get(AGENT, "namespaces", "", "lab")
        messages = {each["type"]: each["message"] for each in left["status"]["conditions"]}
        assert messages["NamespaceContentRemaining"] == (
            "Some resources are remaining: configmaps. has 1 resource instances"
        )
        assert messages["NamespaceFinalizersRemaining"].endswith("x/hold in 1 resource instances")
        await world.api.edit(AGENT, "configmaps", "lab", "x", lambda it: it["metadata"].update(finalizers=[]))
        await world.settle()
        assert world.api.find(AGENT, "namespaces", "", "lab") is None

    tell(story)


def test_the_pods_of_a_namespace_go_before_what_protects_them() -> None:
    async def story(world: World) -> None:
        await make(world)
        await world.create("configmaps", {"metadata": {"name": "x", "namespace": "lab"}})
        held = pod("web")
        held["metadata"] |= {"namespace": "lab", "finalizers": ["x/hold"]}
        await world.create("pods", held)
        await world.api.delete(AGENT, "namespaces", "", "lab")
        await world.settle()
        left = world.api.get(AGENT, "namespaces", "", "lab")
        assert condition(left, "NamespaceDeletionContentFailure") == "True"
        assert condition(left, "NamespaceDeletionDiscoveryFailure") == "False"
        assert world.api.get(AGENT, "configmaps", "lab", "x")
        await world.api.edit(AGENT, "pods", "lab", "web", lambda it: it["metadata"].update(finalizers=[]))
        await world.remove(world.pods("lab")[0])
        assert world.api.find(AGENT, "configmaps", "lab", "x") is None
        assert world.api.find(AGENT, "namespaces", "", "lab") is None

    tell(story)


def test_a_full_namespace_is_emptied_in_bites() -> None:
    async def story(world: World) -> None:
        await make(world)
        transaction = world.api.transaction()
        for number in range(1200):
            transaction.create(AGENT, "configmaps", {"metadata": {"name": f"x-{number}", "namespace": "lab"}})
        await transaction.commit()
        await world.api.delete(AGENT, "namespaces", "", "lab")
        await world.settle()
        assert world.api.find(AGENT, "namespaces", "", "lab") is None
        assert world.api.list(AGENT, "configmaps", "lab") == []

    tell(story)


def test_events_are_counted_instead_of_repeated_and_expire_after_an_hour() -> None:
    async def story(world: World) -> None:
        web = await world.create("pods", pod("web"))
        for _ in range(3):
            world.planes.recorder.event(AGENT, web, "Warning", "Unlucky", "it rained")
            await world.later(60)
        world.planes.recorder.event(AGENT, web, "Warning", "Unlucky", "it snowed")
        await world.settle()
        counts = {event["message"]: event["count"] for event in world.events("Unlucky")}
        assert counts == {"it rained": 3, "it snowed": 1}
        await world.later(3600 - 61)
        assert len(world.events("Unlucky")) == 2
        await world.later(3600)
        assert world.api.list(AGENT, "events") == []

    tell(story)


def test_an_event_about_nothing_that_is_left_hurts_nobody() -> None:
    async def story(world: World) -> None:
        ghost = {"kind": "Pod", "metadata": {"name": "ghost", "namespace": "nowhere", "uid": "1"}}
        world.planes.recorder.event(AGENT, ghost, "Normal", "Seen", "boo")
        world.planes.recorder.event("gone", ghost, "Normal", "Seen", "boo")
        world.planes.recorder.event(AGENT, {**ghost, "metadata": {"name": "ghost"}}, "Normal", "Seen", "boo")
        await world.settle()
        (event,) = world.events("Seen")
        assert event["metadata"]["namespace"] == "default"

    tell(story)
