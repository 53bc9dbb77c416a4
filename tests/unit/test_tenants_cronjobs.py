"""CronJobs: a Job for each time of the schedule, as policy, deadline and history allow."""

from typing import Any

from support.world import AGENT, World, job, tell

CRON, JOBS = "cronjobs.batch", "jobs.batch"
Object = dict[str, Any]


def cron(schedule: str = "* * * * *", **spec: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "report"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": job()["spec"]}, **spec},
    }


def jobs(world: World) -> list[Object]:
    return [
        each for each in world.api.list(AGENT, JOBS, "default") if "deletionTimestamp" not in each["metadata"]
    ]


def reported(world: World) -> Object:
    found: Object = world.api.get(AGENT, CRON, "default", "report").get("status", {})
    return found


async def minute(world: World, count: int = 1) -> None:
    """To a little after the beginning of a later minute."""
    now = world.clock.now_ms()
    await world.later((60_000 * count - now % 60_000 + 200) / 1000)


async def end_all(world: World, code: int = 0) -> None:
    for each in world.pods():
        if each["status"]["phase"] == "Pending":
            await world.end_pod(each, code)
    await world.settle()


def test_a_job_is_made_for_each_minute() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron())
        await world.settle()
        assert jobs(world) == []
        await minute(world)
        (first,) = jobs(world)
        due = world.clock.now_ms() // 60_000
        assert first["metadata"]["name"] == f"report-{due}"
        assert first["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
        assert "batch.kubernetes.io/cronjob-scheduled-timestamp" in first["metadata"]["annotations"]
        assert first["spec"]["selector"]["matchLabels"]
        assert reported(world)["active"][0]["name"] == first["metadata"]["name"]
        await minute(world)
        assert len(jobs(world)) == 2
        await end_all(world)
        assert "active" not in reported(world)
        assert reported(world)["lastSuccessfulTime"]

    tell(story)


def test_suspended_or_unreadable_schedules_make_nothing() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron(suspend=True))
        await world.settle()
        await minute(world, 3)
        assert jobs(world) == []
        await world.api.edit(AGENT, CRON, "default", "report", lambda it: it["spec"].update(suspend=False))
        await world.settle()
        assert len(jobs(world)) == 1
        await world.api.edit(AGENT, CRON, "default", "report", lambda it: it["spec"].update(schedule="bad"))
        await world.settle()
        await minute(world, 3)
        assert len(jobs(world)) == 1
        assert "unparseable schedule" in world.events("UnparseableSchedule")[0]["message"]
        await world.api.edit(
            AGENT,
            CRON,
            "default",
            "report",
            lambda it: it["spec"].update(schedule="* * * * *", timeZone="No/Where"),
        )
        await world.settle()
        assert world.events("UnknownTimeZone")

    tell(story)


def test_forbid_waits_for_the_one_that_runs_and_then_starts_at_once() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron(concurrencyPolicy="Forbid"))
        await minute(world)
        await minute(world)
        assert len(jobs(world)) == 1
        assert world.events("JobAlreadyActive")
        await end_all(world)
        assert len(jobs(world)) == 2

    tell(story)


def test_replace_ends_the_one_that_runs() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron(concurrencyPolicy="Replace"))
        await minute(world)
        (first,) = jobs(world)
        await minute(world)
        (second,) = jobs(world)
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert [each["uid"] for each in reported(world)["active"]] == [second["metadata"]["uid"]]

    tell(story)


def test_a_time_that_was_missed_for_too_long_is_skipped() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron("0 * * * *", startingDeadlineSeconds=60, suspend=True))
        now = world.clock.now_ms()
        await world.later((3_600_000 - now % 3_600_000 + 120_000) / 1000)
        await world.api.edit(AGENT, CRON, "default", "report", lambda it: it["spec"].update(suspend=False))
        await world.settle()
        assert jobs(world) == []
        assert world.events("MissSchedule")

    tell(story)


def test_only_the_last_of_many_missed_times_is_made_up_for() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron(suspend=True))
        await minute(world, 500)
        await world.api.edit(AGENT, CRON, "default", "report", lambda it: it["spec"].update(suspend=False))
        await world.settle()
        assert len(jobs(world)) == 1
        assert world.events("TooManyMissedTimes")

    tell(story)


def test_history_keeps_the_newest() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=0))
        for _ in range(4):
            await minute(world)
            await end_all(world)
        assert len(jobs(world)) == 2
        assert jobs(world)[-1]["metadata"]["name"] == f"report-{world.clock.now_ms() // 60_000}"

    tell(story)


def test_the_clock_is_that_of_the_zone() -> None:
    async def story(world: World) -> None:
        await world.create(CRON, cron("30 5 * * *", timeZone="Asia/Kolkata"))
        now = world.clock.now_ms()
        # 05:30 in Kolkata is midnight in UTC.
        await world.later((86_400_000 - now % 86_400_000 + 200) / 1000)
        (made,) = jobs(world)
        stamp = made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        assert stamp.endswith("T05:30:00+05:30")

    tell(story)
