"""Services, their revisions and routes: what controllers make of them, and what they say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from support.functions import DOMAIN, Stage, service, stage
from support.world import AGENT

from walras.functions import configurations
from walras.functions.configurations import KEPT, YOUNG_MS
from walras.functions.words import CONFIGURATIONS, REVISIONS, ROUTES, ROUTING_STATE, SERVICES
from walras.tenants.objects import AGENTS, FLEET

Object = dict[str, Any]


def test_a_service_becomes_a_configuration_a_revision_and_a_route_and_is_ready_with_its_first_instance() -> (
    None
):
    async def story(on: Stage) -> None:
        await on.apply(service())
        assert on.ready_of() == ("Unknown", "Deploying")
        assert on.ready_of(ROUTES) == ("Unknown", "RevisionMissing")
        assert on.status()["latestCreatedRevisionName"] == "hello-00001"
        assert "latestReadyRevisionName" not in on.status()
        await on.run_all()
        for resource in (SERVICES, CONFIGURATIONS, ROUTES):
            assert on.ready_of(resource) == ("True", "")
        assert on.ready_of(REVISIONS, "hello-00001") == ("True", "")
        assert on.status()["latestReadyRevisionName"] == "hello-00001"
        assert on.status()["url"] == f"http://hello.default.{AGENT}.{DOMAIN}"
        assert on.status()["traffic"] == [
            {"revisionName": "hello-00001", "latestRevision": True, "percent": 100}
        ]

    stage(story)


def test_what_is_made_for_a_service_is_told_in_events() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await on.ready(service(says="two"))
        events = on.world.api.list(AGENT, "events")
        told = {
            (each["involvedObject"]["kind"], each["message"])
            for each in events
            if each["reason"] == "Created"
        }
        assert told == {
            ("Service", 'Created Configuration "hello"'),
            ("Service", 'Created Route "hello"'),
            ("Configuration", 'Created Revision "hello-00001"'),
            ("Configuration", 'Created Revision "hello-00002"'),
        }

    stage(story)


def test_instances_know_their_service_and_bid_as_latency_class() -> None:
    async def story(on: Stage) -> None:
        made = service()
        made["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 9000}]
        made["spec"]["template"]["metadata"]["annotations"]["walras.dev/max-price"] = "2.50"
        await on.apply(made)
        (pod,) = on.world.pods()
        (container,) = pod["spec"]["containers"]
        env = {each["name"]: each.get("value", "") for each in container["env"]}
        assert env["PORT"] == "9000" and env["K_SERVICE"] == "hello" and env["K_REVISION"] == "hello-00001"
        assert env["K_CONFIGURATION"] == "hello" and env["SAYS"] == ""
        assert container["name"] == "user-container"
        assert pod["metadata"]["annotations"]["walras.dev/class"] == "latency"
        assert pod["metadata"]["annotations"]["walras.dev/max-price"] == "2.50"
        assert pod["metadata"]["labels"]["serving.knative.dev/revision"] == "hello-00001"
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "Revision"

    stage(story)


def test_a_new_template_is_a_new_revision_and_takes_over_once_it_is_ready() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await on.apply(service(says="two"))
        assert on.revisions() == ["hello-00001", "hello-00002"]
        assert on.ready_of() == ("Unknown", "Deploying")
        assert (await on.get()).revision == "hello-00001"
        await on.run_all()
        assert on.ready_of() == ("True", "")
        assert (await on.get()).revision == "hello-00002"
        states = [each["metadata"]["labels"][ROUTING_STATE] for each in on.world.api.list(AGENT, REVISIONS)]
        assert states == ["reserve", "active"]

    stage(story)


def test_a_change_of_traffic_alone_makes_no_revision() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await on.apply(service(traffic=[{"revisionName": "hello-00001", "percent": 100}]))
        assert on.revisions() == ["hello-00001"]
        assert on.status()["traffic"] == [
            {"revisionName": "hello-00001", "latestRevision": False, "percent": 100}
        ]

    stage(story)


def test_traffic_to_what_is_not_there_stays_where_it_was_and_says_so() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await on.apply(service(traffic=[{"revisionName": "hello-00007", "percent": 100}]))
        assert on.ready_of() == ("False", "RevisionMissing")
        assert (await on.get()).revision == "hello-00001"

    stage(story)


def test_a_revision_may_be_named_and_a_name_is_not_used_twice() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(revision="hello-blue"))
        assert on.revisions() == ["hello-blue"]
        await on.apply(service(revision="hello-blue", says="other"))
        assert on.ready_of(CONFIGURATIONS) == ("False", "RevisionFailed")
        assert (await on.get()).revision == "hello-blue"
        await on.ready(service(revision="hello-green", says="other"))
        assert (await on.get()).revision == "hello-green"
        # Back to the first: it is there already.
        await on.apply(service(revision="hello-blue"))
        await on.world.settle()
        assert on.status()["latestReadyRevisionName"] == "hello-blue"

    stage(story)


def test_revisions_that_no_route_leads_to_are_kept_for_two_days_and_the_newest_longer() -> None:
    async def story(on: Stage) -> None:
        for number in range(KEPT + 3):
            await on.ready(service(says=str(number)))
        await on.world.settle()
        assert len(on.revisions()) == KEPT + 3
        await on.world.later(YOUNG_MS // 1000 - 10)
        assert len(on.revisions()) == KEPT + 3
        await on.world.later(20)
        await on.world.settle()
        assert len(on.revisions()) == KEPT + 1
        assert on.revisions()[-1] == f"hello-{KEPT + 3:05d}"
        assert "hello-00001" not in on.revisions()

    stage(story)


def test_a_revision_that_was_asked_lately_outlives_newer_ones() -> None:
    async def story(on: Stage) -> None:
        for number in range(KEPT + 2):
            await on.ready(service(says=str(number)))
        last = service(says=str(KEPT + 1), traffic=[{"revisionName": "hello-00001", "percent": 100}])
        await on.ready(last)
        await on.world.later(YOUNG_MS // 1000)
        await on.ready(service(says=str(KEPT + 1)))
        await on.world.settle()
        assert "hello-00001" in on.revisions() and "hello-00002" not in on.revisions()
        assert len(on.revisions()) == KEPT + 1

    stage(story)


def test_young_revisions_are_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configurations, "KEPT", 1)
    monkeypatch.setattr(configurations, "KEPT_MAX", 3)

    async def story(on: Stage) -> None:
        for number in range(6):
            await on.ready(service(says=str(number)))
        await on.world.settle()
        assert on.revisions() == ["hello-00003", "hello-00004", "hello-00005", "hello-00006"]

    stage(story)


def test_a_deleted_service_takes_everything_along() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await on.world.api.delete(AGENT, SERVICES, "default", "hello")
        await on.world.settle()
        await on.sweep()
        for resource in (SERVICES, CONFIGURATIONS, ROUTES, REVISIONS, "pods"):
            assert on.world.api.list(AGENT, resource) == []
        assert (await on.get()).status == 404

    stage(story)


def test_a_configuration_of_somebody_else_is_left_alone() -> None:
    async def story(on: Stage) -> None:
        template = service(says="theirs")["spec"]["template"]
        await on.world.create(CONFIGURATIONS, {"metadata": {"name": "hello"}, "spec": {"template": template}})
        await on.apply(service(says="ours"))
        assert on.ready_of() == ("False", "NotOwned")
        found = on.world.api.get(AGENT, CONFIGURATIONS, "default", "hello")
        assert found["spec"]["template"]["spec"]["containers"] == template["spec"]["containers"]

    stage(story)


def test_a_revision_whose_first_instance_never_answers_has_failed_after_its_deadline() -> None:
    async def story(on: Stage) -> None:
        made = service()
        annotations = made["spec"]["template"]["metadata"]["annotations"]
        annotations["serving.knative.dev/progress-deadline"] = "30s"
        await on.apply(made)
        await on.world.later(31)
        assert on.ready_of(REVISIONS, "hello-00001") == ("False", "ProgressDeadlineExceeded")
        assert on.ready_of() == ("False", "RevisionFailed")
        await on.sweep()
        assert on.world.pods() == []

    stage(story)


def test_a_container_that_ends_is_named_in_the_conditions() -> None:
    async def story(on: Stage) -> None:
        await on.apply(service())
        (pod,) = on.world.pods()
        ended = {"terminated": {"exitCode": 3, "reason": "Error"}}
        statuses = [{"name": "user-container", "ready": False, "state": ended}]
        on.dead.add(pod["metadata"]["name"])
        await on.world.set_status(pod, phase="Running", containerStatuses=statuses)
        await on.world.settle()
        assert on.ready_of(REVISIONS, "hello-00001") == ("False", "ExitCode3")
        assert on.ready_of() == ("False", "RevisionFailed")

    stage(story)


def test_an_image_that_cannot_be_had_is_named_in_the_conditions() -> None:
    async def story(on: Stage) -> None:
        await on.apply(service())
        (pod,) = on.world.pods()
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
        said = {"name": "user-container", "image": "nowhere/none:1", "ready": False, "state": waiting}
        on.dead.add(pod["metadata"]["name"])
        await on.world.set_status(pod, phase="Pending", containerStatuses=[said])
        await on.world.settle()
        assert on.ready_of(REVISIONS, "hello-00001") == ("False", "ContainerMissing")
        conditions = on.status()["conditions"]
        assert any(
            'Unable to fetch image "nowhere/none:1": no such image' in c.get("message", "")
            for c in conditions
        )

    stage(story)


def test_a_refused_bid_is_named_in_the_conditions() -> None:
    async def story(on: Stage) -> None:
        await on.apply(service())
        await on.refuse_bids()
        (pod,) = on.world.pods()
        await on.world.set_status(pod, message="touched")
        await on.world.settle()
        assert on.ready_of(REVISIONS, "hello-00001") == ("Unknown", "Outbid")

    stage(story)


def aliases(on: Stage) -> list[str]:
    """The names by which pods find functions."""
    services = on.world.api.list(AGENT, "services", "default")
    return [each["metadata"]["name"] for each in services if each["spec"].get("type") == "ExternalName"]


def test_pods_find_a_function_by_services_that_come_and_go_with_it() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(traffic=[{"latestRevision": True, "percent": 100, "tag": "next"}]))
        await on.world.settle()
        assert aliases(on) == ["hello", "next-hello"]
        assert on.status()["address"] == {"url": "http://hello.default.svc.cluster.local"}
        await on.world.api.delete(AGENT, "services", "default", "hello")
        await on.world.settle()
        assert aliases(on) == ["hello", "next-hello"]
        await on.apply(service())
        assert aliases(on) == ["hello"]
        await on.world.api.delete(AGENT, SERVICES, "default", "hello")
        await on.world.settle()
        assert aliases(on) == []

    stage(story)


def test_a_service_of_somebody_else_by_that_name_is_left_alone_and_said() -> None:
    async def story(on: Stage) -> None:
        taken = {"metadata": {"name": "hello"}, "spec": {"ports": [{"port": 80}]}}
        await on.world.create("services", taken)
        await on.ready(service())
        assert on.ready_of(ROUTES) == ("False", "NotOwned")
        assert on.world.api.get(AGENT, "services", "default", "hello")["spec"]["ports"]
        await on.world.api.delete(AGENT, "services", "default", "hello")
        await on.world.settle()
        assert on.ready_of() == ("True", "")

    stage(story)


@pytest.mark.parametrize("number", [0, 3])
def test_as_many_instances_as_it_begins_with_make_a_revision_ready(number: int) -> None:
    async def story(on: Stage) -> None:
        await on.apply(service(initial_scale=str(number)))
        assert len(on.world.pods()) == number
        await on.run_all()
        assert on.ready_of() == ("True", "")

    stage(story)


def test_what_cannot_be_made_is_said_and_tried_again() -> None:
    async def story(on: Stage) -> None:
        hard = {"hard": {"pods": "0"}}
        await on.world.create("resourcequotas", {"metadata": {"name": "none"}, "spec": hard, "status": hard})
        await on.world.settle()
        await on.apply(service())
        assert on.ready_of(REVISIONS, "hello-00001") == ("False", "FailedCreate")
        assert on.world.events("FailedCreate")
        await on.world.api.delete(AGENT, "resourcequotas", "default", "none")
        await on.world.later(11)
        await on.run_all()
        assert on.ready_of() == ("True", "")

    stage(story)


async def bounded(on: Stage, objects: int) -> None:
    """The cluster may hold so many objects."""

    def change(agent: Object) -> None:
        agent["spec"]["controlPlane"] = {"quota": {"objects": objects}}

    await on.world.api.edit(FLEET, AGENTS, "", AGENT, change)


def test_a_cluster_that_is_full_gets_no_revision_and_says_so_until_there_is_room() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await bounded(on, on.world.api.state.cluster(AGENT).objects)
        await on.apply(service(says="two"))
        assert on.revisions() == ["hello-00001"]
        assert on.ready_of(CONFIGURATIONS) == ("False", "RevisionFailed")
        assert (await on.get()).revision == "hello-00001"
        await bounded(on, 1000)
        await on.world.later(11)
        await on.run_all()
        assert on.ready_of() == ("True", "")
        assert (await on.get()).revision == "hello-00002"

    stage(story)


def test_a_cluster_that_is_full_gets_no_services_for_tags_until_there_is_room() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await bounded(on, on.world.api.state.cluster(AGENT).objects + 2)
        tags = [{"latestRevision": True, "percent": 0, "tag": f"tag{number}"} for number in range(5)]
        await on.ready(service(traffic=[{"latestRevision": True, "percent": 100}, *tags]))
        assert on.ready_of(ROUTES) == ("False", "FailedCreate")
        assert len(aliases(on)) == 3
        assert (await on.get()).status == 200
        await bounded(on, 1000)
        await on.world.later(11)
        assert len(aliases(on)) == 6
        assert on.ready_of() == ("True", "")

    stage(story)
