"""Jobs run to completion, give up when they should, and never count a displacement against themselves."""

import pytest
from support.world import AGENT, CA, ENDPOINT, World, condition, job, tell

from walras.core.clock import SequenceIds, rfc3339
from walras.tenants.job_indexes import format_indexes, parse_indexes
from walras.tenants.job_plan import TRACKING
from walras.tenants.planes import ControlPlanes

JOBS = "jobs.batch"
Object = dict[str, object]


def the_job(world: World) -> dict[str, object]:
    return world.api.get(AGENT, JOBS, "default", "train")


def status(world: World, field: str) -> object:
    reported = the_job(world)["status"]
    assert isinstance(reported, dict)
    return reported.get(field)


async def begin(world: World, **spec: object) -> None:
    await world.create(JOBS, job(**spec))  # type: ignore[arg-type]
    await world.settle()


async def displace(world: World, pod: dict[str, object]) -> None:
    """As the exchange does with a pod whose lease is over: marked, then deleted with its grace period."""
    gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByWalras"}
    await world.set_status(pod, conditions=[gone])
    metadata = pod["metadata"]
    assert isinstance(metadata, dict)
    await world.api.delete(AGENT, "pods", "default", metadata["name"])
    await world.settle()


def test_a_job_completes() -> None:
    async def story(world: World) -> None:
        await begin(world)
        (pod,) = world.pods()
        assert pod["metadata"]["name"].startswith("train-")
        assert pod["metadata"]["labels"]["job-name"] == "train"
        assert pod["spec"]["nodeName"] == "base"
        assert status(world, "active") == 1
        await world.run_pod(pod)
        assert status(world, "ready") == 1
        await world.end_pod(pod)
        assert condition(the_job(world), "Complete") == "True"
        assert condition(the_job(world), "SuccessCriteriaMet") == "True"
        assert (status(world, "succeeded"), status(world, "active")) == (1, None)
        assert status(world, "completionTime") == rfc3339(world.clock.now_ms())
        assert len(world.pods()) == 1 and "finalizers" not in world.pods()[0]["metadata"]
        assert {each["reason"] for each in world.api.list(AGENT, "events")} >= {
            "SuccessfulCreate",
            "Completed",
        }

    tell(story)


def test_completions_are_worked_off_in_parallel() -> None:
    async def story(world: World) -> None:
        await begin(world, completions=5, parallelism=2)
        ended = 0
        while not condition(the_job(world), "Complete"):
            active = [pod for pod in world.pods() if pod["status"]["phase"] == "Pending"]
            assert len(active) == min(2, 5 - ended)
            await world.end_pod(active[0])
            ended += 1
        assert ended == 5 and len(world.pods()) == 5

    tell(story)


def test_a_work_queue_ends_when_one_has_succeeded_and_the_rest_have_ended() -> None:
    async def story(world: World) -> None:
        await begin(world, parallelism=3)
        first, second, third = world.pods()
        await world.end_pod(first)
        assert not condition(the_job(world), "Complete") and len(world.pods()) == 3
        await world.end_pod(second)
        await world.end_pod(third)
        assert condition(the_job(world), "Complete") == "True"

    tell(story)


def test_a_job_gives_up_at_its_backoff_limit() -> None:
    async def story(world: World) -> None:
        await begin(world, backoffLimit=2)
        for failure in range(3):
            pods = [pod for pod in world.pods() if pod["status"]["phase"] == "Pending"]
            assert len(pods) == 1
            await world.end_pod(pods[0], code=1)
            assert status(world, "failed") == failure + 1
            if failure < 2:
                assert not condition(the_job(world), "Failed")
                await world.later(10 * 2**failure)
        assert condition(the_job(world), "Failed") == "True"
        (event,) = world.events("BackoffLimitExceeded")
        assert (event["type"], event["message"]) == ("Warning", "Job has reached the specified backoff limit")
        await world.later(3600)
        assert len(world.pods()) == 3

    tell(story)


def test_each_failure_doubles_the_wait() -> None:
    async def story(world: World) -> None:
        await begin(world)
        for wait_s in (10, 20, 40):
            (pod,) = [pod for pod in world.pods() if pod["status"]["phase"] == "Pending"]
            count = len(world.pods())
            await world.end_pod(pod, code=1)
            await world.later(wait_s - 0.001)
            assert len(world.pods()) == count
            await world.later(0.001)
            assert len(world.pods()) == count + 1

    tell(story)


def test_restarts_in_place_count_too() -> None:
    async def story(world: World) -> None:
        await begin(world, restart="OnFailure", backoffLimit=2)
        (pod,) = world.pods()
        await world.set_status(pod, phase="Running", containerStatuses=[{"name": "main", "restartCount": 1}])
        await world.settle()
        assert not condition(the_job(world), "FailureTarget")
        await world.set_status(pod, containerStatuses=[{"name": "main", "restartCount": 2}])
        await world.settle()
        await world.remove(pod)
        assert condition(the_job(world), "Failed") == "True" and world.pods() == []

    tell(story)


def test_a_displaced_pod_is_replaced_at_once_and_does_not_count() -> None:
    async def story(world: World) -> None:
        await begin(world, backoffLimit=0)
        (pod,) = world.pods()
        await world.run_pod(pod)
        for _ in range(3):
            (running,) = [each for each in world.pods() if "deletionTimestamp" not in each["metadata"]]
            await displace(world, running)
            # The old one still has its grace time, and the next is there already.
            assert len(world.pods()) == 2
            await world.end_pod(running, code=137)
            await world.remove(running)
            assert len(world.pods()) == 1
        assert status(world, "failed") is None
        assert not condition(the_job(world), "Failed")
        await world.end_pod(world.pods()[0])
        assert condition(the_job(world), "Complete") == "True" and status(world, "succeeded") == 1

    tell(story)


def test_a_failure_policy_ignores_or_ends_the_job_by_exit_code() -> None:
    async def story(world: World) -> None:
        rules = [
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "main", "operator": "NotIn", "values": [1]},
            },
        ]
        await begin(world, backoffLimit=1, podFailurePolicy={"rules": rules})
        for code in (75, 75, 1):
            (pod,) = [pod for pod in world.pods() if pod["status"]["phase"] == "Pending"]
            await world.end_pod(pod, code=code)
            await world.later(10)
        assert status(world, "failed") == 1 and not condition(the_job(world), "FailureTarget")
        (pod,) = [pod for pod in world.pods() if pod["status"]["phase"] == "Pending"]
        await world.end_pod(pod, code=42)
        reported = world.api.get(AGENT, JOBS, "default", "train")["status"]
        (failed,) = [each for each in reported["conditions"] if each["type"] == "Failed"]
        assert failed["reason"] == "PodFailurePolicy"
        assert failed["message"].endswith("failed with exit code 42 matching FailJob rule at index 1")

    tell(story)


def test_a_pod_that_someone_deletes_counts_as_failed() -> None:
    async def story(world: World) -> None:
        await begin(world, backoffLimit=0)
        (pod,) = world.pods()
        await world.run_pod(pod)
        await world.api.delete(AGENT, "pods", "default", pod["metadata"]["name"])
        await world.settle()
        await world.remove(pod)
        assert condition(the_job(world), "Failed") == "True"

    tell(story)


def test_a_finished_pod_is_counted_even_if_it_is_deleted_in_the_same_moment() -> None:
    async def story(world: World) -> None:
        await begin(world, completions=2, parallelism=1)
        (pod,) = world.pods()
        name = pod["metadata"]["name"]
        transaction = world.api.transaction()
        transaction.edit(AGENT, "pods", "default", name, lambda it: it["status"].update(phase="Succeeded"))
        transaction.delete(AGENT, "pods", "default", name)
        await transaction.commit()
        await world.settle()
        assert status(world, "succeeded") == 1
        assert world.api.find(AGENT, "pods", "default", name) is None
        assert len(world.pods()) == 1

    tell(story)


def test_a_deadline_ends_the_job_and_its_pods() -> None:
    async def story(world: World) -> None:
        await begin(world, activeDeadlineSeconds=60)
        (pod,) = world.pods()
        await world.run_pod(pod)
        await world.later(59)
        assert not condition(the_job(world), "FailureTarget")
        await world.later(1)
        assert "deletionTimestamp" in world.pods()[0]["metadata"]
        assert not condition(the_job(world), "Failed"), "its pod still has its grace time"
        await world.remove(pod)
        (failed,) = [
            each for each in world.api.get(AGENT, JOBS, "default", "train")["status"]["conditions"]
            if each["type"] == "Failed"
        ]  # fmt: skip
        assert failed["reason"] == "DeadlineExceeded"

    tell(story)


def test_a_finished_job_is_deleted_after_its_time_to_live() -> None:
    async def story(world: World) -> None:
        await begin(world, ttlSecondsAfterFinished=30)
        await world.end_pod(world.pods()[0])
        await world.later(29)
        assert condition(the_job(world), "Complete") == "True"
        await world.later(1)
        assert world.api.list(AGENT, JOBS) == [] and world.pods() == []

    tell(story)


def test_a_suspended_job_has_no_pods_and_begins_when_it_is_resumed() -> None:
    async def story(world: World) -> None:
        await begin(world, suspend=True)
        assert world.pods() == [] and status(world, "startTime") is None
        assert condition(the_job(world), "Suspended") == "True"
        await world.api.edit(AGENT, JOBS, "default", "train", lambda it: it["spec"].update(suspend=False))
        await world.settle()
        (pod,) = world.pods()
        await world.run_pod(pod)
        assert condition(the_job(world), "Suspended") == "False"
        await world.api.edit(AGENT, JOBS, "default", "train", lambda it: it["spec"].update(suspend=True))
        await world.settle()
        await world.remove(pod)
        assert world.pods() == []
        assert status(world, "failed") is None

    tell(story)


def test_replacement_can_wait_until_the_pod_is_really_gone() -> None:
    async def story(world: World) -> None:
        await begin(world, podReplacementPolicy="Failed")
        (pod,) = world.pods()
        await world.run_pod(pod)
        await displace(world, pod)
        assert len(world.pods()) == 1 and status(world, "terminating") == 1
        await world.end_pod(pod, code=143)
        await world.remove(pod)
        (replacement,) = world.pods()
        assert replacement["metadata"]["name"] != pod["metadata"]["name"]

    tell(story)


def test_an_indexed_job_runs_every_index_once() -> None:
    async def story(world: World) -> None:
        await begin(world, completions=4, parallelism=2, completionMode="Indexed", backoffLimit=6)
        done = []
        while not condition(the_job(world), "Complete"):
            pod = next(each for each in world.pods() if each["status"]["phase"] == "Pending")
            index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
            assert {"name": "JOB_COMPLETION_INDEX", "value": index} in pod["spec"]["containers"][0]["env"]
            if index == "2" and "2" not in done:
                done.append(index)
                await world.end_pod(pod, code=1)
                await world.later(10)
                continue
            done.append(index)
            await world.end_pod(pod)
        assert sorted(done) == ["0", "1", "2", "2", "3"]
        assert status(world, "completedIndexes") == "0-3"

    tell(story)


def test_deleting_a_job_takes_its_pods_along() -> None:
    async def story(world: World) -> None:
        await begin(world, parallelism=2, completions=2)
        first, second = world.pods()
        await world.run_pod(first)
        await world.end_pod(second)
        await world.api.delete(AGENT, JOBS, "default", "train")
        await world.settle()
        await world.remove(first)
        assert world.pods() == []

    tell(story)


def test_an_orphaned_pod_is_no_longer_held() -> None:
    async def story(world: World) -> None:
        await begin(world)
        await world.api.delete(AGENT, JOBS, "default", "train", propagation="Orphan")
        await world.settle()
        (pod,) = world.pods()
        assert "ownerReferences" not in pod["metadata"]
        assert TRACKING not in pod["metadata"].get("finalizers", [])

    tell(story)


def test_a_restart_goes_on_where_the_job_was() -> None:
    async def story(world: World) -> None:
        await begin(world, completions=3, parallelism=1)
        await world.end_pod(world.pods()[0])
        await world.planes.stop()
        # It ends while nobody looks.
        running = next(pod for pod in world.pods() if pod["status"]["phase"] == "Pending")
        await world.set_status(running, phase="Succeeded")
        world.planes = ControlPlanes(world.api, world.clock, SequenceIds(), endpoint=ENDPOINT, ca_pem=CA)
        await world.planes.start()
        await world.settle()
        assert status(world, "succeeded") == 2 and len(world.pods()) == 3
        await world.end_pod(next(pod for pod in world.pods() if pod["status"]["phase"] == "Pending"))
        assert condition(the_job(world), "Complete") == "True"
        await world.planes.stop()

    tell(story)


@pytest.mark.parametrize("text", ["", "0", "0-2", "0-2,4", "1,3,5-9", "0,1,4"])
def test_indexes_are_written_as_kubernetes_writes_them(text: str) -> None:
    assert format_indexes(parse_indexes(text)) == text


def the_pods(world: World, index: int) -> list[dict[str, object]]:
    key = "batch.kubernetes.io/job-completion-index"
    return [each for each in world.pods() if each["metadata"]["annotations"][key] == str(index)]


async def end_index(world: World, index: int, code: int) -> None:
    pod = next(each for each in the_pods(world, index) if each["status"]["phase"] == "Pending")  # type: ignore[index]
    await world.end_pod(pod, code)


def test_each_index_has_its_own_limit_of_failures() -> None:
    async def story(world: World) -> None:
        await begin(world, completionMode="Indexed", completions=3, parallelism=3, backoffLimitPerIndex=1)
        await end_index(world, 0, 1)
        assert len(the_pods(world, 0)) == 1
        await world.later(10)
        again = the_pods(world, 0)[-1] if len(the_pods(world, 0)) == 2 else None
        assert again is not None
        counts = sorted(
            str(each["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"])  # type: ignore[index]
            for each in the_pods(world, 0)
        )
        assert counts == ["0", "1"]
        await end_index(world, 0, 1)
        assert status(world, "failedIndexes") == "0"
        assert condition(the_job(world), "Failed") == ""
        await end_index(world, 1, 0)
        await end_index(world, 2, 0)
        assert condition(the_job(world), "Failed") == "True"
        assert status(world, "completedIndexes") == "1,2"
        assert {each["reason"] for each in the_job(world)["status"]["conditions"]} == {"FailedIndexes"}  # type: ignore[index]

    tell(story)


def test_more_failed_indexes_than_allowed_end_the_job() -> None:
    async def story(world: World) -> None:
        await begin(
            world, completionMode="Indexed", completions=5, parallelism=2,
            backoffLimitPerIndex=0, maxFailedIndexes=1,
        )  # fmt: skip
        await end_index(world, 0, 1)
        assert condition(the_job(world), "Failed") == ""
        await end_index(world, 1, 1)
        for pod in world.pods():
            await world.remove(pod)
        assert condition(the_job(world), "Failed") == "True"
        conditions = the_job(world)["status"]["conditions"]  # type: ignore[index]
        assert conditions[0]["reason"] == "MaxFailedIndexesExceeded"

    tell(story)


def test_a_policy_may_fail_an_index_at_once() -> None:
    async def story(world: World) -> None:
        rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
        await begin(
            world, completionMode="Indexed", completions=2, parallelism=2,
            backoffLimitPerIndex=5, podFailurePolicy={"rules": [rule]},
        )  # fmt: skip
        await end_index(world, 0, 42)
        assert status(world, "failedIndexes") == "0"
        await world.later(600)
        assert len(the_pods(world, 0)) == 1

    tell(story)


@pytest.mark.parametrize(
    ("rule", "done"),
    [({"succeededIndexes": "0,2"}, [2, 0]), ({"succeededCount": 1}, [1]),
     ({"succeededIndexes": "1-2", "succeededCount": 1}, [2])],
)  # fmt: skip
def test_a_job_may_have_done_enough_before_every_index_has(rule: object, done: list[int]) -> None:
    async def story(world: World) -> None:
        await begin(
            world, completionMode="Indexed", completions=3, parallelism=3, successPolicy={"rules": [rule]}
        )
        for index in done:
            assert condition(the_job(world), "SuccessCriteriaMet") == ""
            await end_index(world, index, 0)
        for pod in world.pods():
            if "deletionTimestamp" in pod["metadata"]:
                await world.remove(pod)
        assert condition(the_job(world), "Complete") == "True"
        conditions = the_job(world)["status"]["conditions"]  # type: ignore[index]
        assert {each["reason"] for each in conditions} == {"SuccessPolicy"}

    tell(story)


def test_a_job_that_another_controller_manages_is_left_alone() -> None:
    async def story(world: World) -> None:
        await begin(world, managedBy="example.com/queue")
        assert world.pods() == []
        assert "status" not in the_job(world)

    tell(story)


def test_a_job_takes_in_its_orphans_and_lets_go_of_what_does_not_match() -> None:
    async def story(world: World) -> None:
        await begin(world)
        (pod,) = world.pods()
        name = str(pod["metadata"]["name"])

        def orphan(latest: dict[str, dict[str, object]]) -> None:
            del latest["metadata"]["ownerReferences"]

        await world.api.edit(AGENT, "pods", "default", name, orphan)
        await world.settle()
        (pod,) = world.pods()
        assert pod["metadata"]["ownerReferences"][0]["name"] == "train"
        assert TRACKING in pod["metadata"]["finalizers"]
        await world.api.edit(AGENT, "pods", "default", name, lambda it: it["metadata"].update(labels={}))
        await world.settle()
        found = world.api.get(AGENT, "pods", "default", name)["metadata"]
        assert "ownerReferences" not in found
        assert "finalizers" not in found
        assert len(world.pods()) == 2

    tell(story)
