"""What controllers make for an agent counts against its quota, as what it makes itself does."""

from typing import Any

import pytest
from support.world import AGENT, World, job, pod, tell

Object = dict[str, Any]
QUOTA = 80


async def bounded(world: World, objects: int) -> None:
    def declare(agent: Object) -> None:
        agent["spec"]["controlPlane"] = {"quota": {"objects": objects}}

    await world.api.edit("fleet", "agents.walras.dev", "", AGENT, declare)
    await world.settle()


def replica_set() -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("")["spec"]}
    selector = {"matchLabels": {"app": "web"}}
    return {
        "metadata": {"name": "web"},
        "spec": {"replicas": 9000, "selector": selector, "template": template},
    }


@pytest.mark.parametrize(
    ("resource", "wanted"),
    [("replicasets.apps", replica_set()), ("jobs.batch", job(parallelism=9000, completions=9000))],
)
def test_what_asks_for_more_than_the_quota_gets_the_quota(resource: str, wanted: Object) -> None:
    async def story(world: World) -> None:
        await bounded(world, QUOTA)
        await world.create(resource, wanted)
        await world.settle()
        made = world.pods()
        assert 20 <= len(made) <= QUOTA
        await world.later(60)
        assert len(world.pods()) == len(made)
        failed = [each for each in world.api.list(AGENT, "events") if each["reason"] == "FailedCreate"]
        assert "exceeded quota" in failed[0]["message"] and len(failed) == 1
        # Room that comes is used, a while later.
        await bounded(world, 4 * QUOTA)
        await world.later(15)
        assert len(world.pods()) > len(made)

    tell(story)
