"""What controllers do for access control: aggregated roles, token Secrets, tokens in pods."""

from __future__ import annotations

from typing import Any

import pytest
from support.world import AGENT, World, pod, tell

from walras.kube.access.mounting import MOUNT_PATH
from walras.kube.access.words import CLUSTER_ROLES
from walras.tenants import aggregation
from walras.tenants.tokens import decode

Object = dict[str, Any]
SPACE = "default"


def role(name: str, labels: dict[str, str], *verbs: str, **more: Any) -> Object:
    rules = [{"verbs": list(verbs), "apiGroups": ["x"], "resources": ["things"]}] if verbs else []
    return {"metadata": {"name": name, "labels": labels}, "rules": rules, **more}


def selecting(**labels: str) -> Object:
    return {"clusterRoleSelectors": [{"matchLabels": labels}]}


def rules_of(world: World, name: str) -> list[Object]:
    return list(world.api.get(AGENT, CLUSTER_ROLES, "", name).get("rules") or [])


def test_an_aggregated_role_says_what_the_roles_that_it_selects_say() -> None:
    async def story(world: World) -> None:
        await world.create(CLUSTER_ROLES, role("all", {}, aggregationRule=selecting(part="yes")))
        await world.create(CLUSTER_ROLES, role("one", {"part": "yes"}, "get"))
        await world.create(CLUSTER_ROLES, role("two", {"part": "yes"}, "list"))
        await world.create(CLUSTER_ROLES, role("same", {"part": "yes"}, "get"))
        await world.create(CLUSTER_ROLES, role("other", {"part": "no"}, "delete"))
        await world.settle()
        assert [rule["verbs"] for rule in rules_of(world, "all")] == [["get"], ["list"]]
        await world.api.delete(AGENT, CLUSTER_ROLES, "", "two")
        await world.settle()
        assert [rule["verbs"] for rule in rules_of(world, "all")] == [["get"]]

    tell(story)


def test_a_role_of_ones_own_becomes_part_of_edit_and_of_admin_in_its_cluster_alone() -> None:
    async def story(world: World) -> None:
        before = len(rules_of(world, "edit"))
        label = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
        await world.create(CLUSTER_ROLES, role("things", label, "get"))
        await world.settle()
        assert len(rules_of(world, "edit")) == before + 1
        assert any(rule["apiGroups"] == ["x"] for rule in rules_of(world, "admin"))
        assert not any(rule["apiGroups"] == ["x"] for rule in rules_of(world, "view"))
        other = world.api.get("zoo", CLUSTER_ROLES, "", "edit")
        assert len(other["rules"]) == before

    tell(story, agents=(AGENT, "zoo"))


def test_roles_that_select_each_other_come_to_rest() -> None:
    async def story(world: World) -> None:
        both = {"part": "yes"}
        for name in ("left", "right"):
            await world.create(CLUSTER_ROLES, role(name, both, aggregationRule=selecting(part="yes")))
        await world.create(CLUSTER_ROLES, role("leaf", both, "get"))
        await world.settle()
        assert rules_of(world, "left") == rules_of(world, "right") != []
        await world.settle()

    tell(story)


def test_more_rules_than_one_role_may_have_are_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "RULES_BYTES_MAX", 300)

    async def story(world: World) -> None:
        await world.create(CLUSTER_ROLES, role("all", {}, aggregationRule=selecting(part="yes")))
        for number in range(10):
            await world.create(CLUSTER_ROLES, role(f"r{number}", {"part": "yes"}, f"verb{number}"))
        await world.settle()
        assert len(rules_of(world, "all")) < 10

    tell(story)


def token_secret(name: str, account: str) -> Object:
    annotations = {"kubernetes.io/service-account.name": account}
    metadata = {"name": name, "annotations": annotations}
    return {"metadata": metadata, "type": "kubernetes.io/service-account-token"}


def test_a_token_secret_is_filled_and_is_good_as_long_as_it_and_its_account_are_there() -> None:
    async def story(world: World) -> None:
        await world.create("serviceaccounts", {"metadata": {"name": "robot"}})
        await world.create("secrets", token_secret("old-style", "robot"))
        await world.settle()
        secret = world.api.get(AGENT, "secrets", SPACE, "old-style")
        token, identify = decode(secret, "token"), world.planes.accounts.identify
        assert decode(secret, "namespace") == SPACE and decode(secret, "ca.crt")
        who = identify(token)
        assert who is not None and (who.user, who.cluster) == ("system:serviceaccount:default:robot", AGENT)
        world.clock.advance(400 * 86_400_000)
        assert identify(token) is not None
        await world.api.delete(AGENT, "serviceaccounts", SPACE, "robot")
        await world.settle()
        assert identify(token) is None and world.api.find(AGENT, "secrets", SPACE, "old-style") is None

    tell(story)


def test_a_token_secret_of_nobody_or_of_one_who_came_back_is_removed() -> None:
    async def story(world: World) -> None:
        await world.create("secrets", token_secret("nobodys", "none"))
        await world.settle()
        assert world.api.find(AGENT, "secrets", SPACE, "nobodys") is None
        await world.create("serviceaccounts", {"metadata": {"name": "robot"}})
        foreign = token_secret("foreign", "robot")
        foreign["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = "another"
        await world.create("secrets", foreign)
        await world.settle()
        assert world.api.find(AGENT, "secrets", SPACE, "foreign") is None

    tell(story)


def mounts_of(made: Object) -> list[str]:
    return [
        mount["mountPath"]
        for container in made["spec"]["containers"]
        for mount in container.get("volumeMounts") or ()
    ]


def test_a_pod_gets_a_volume_with_a_token_of_its_account() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("one"))
        made = world.api.get(AGENT, "pods", SPACE, "one")
        (volume,) = made["spec"]["volumes"]
        assert volume["name"].startswith("kube-api-access-") and mounts_of(made) == [MOUNT_PATH]
        sources = volume["projected"]["sources"]
        assert [next(iter(source)) for source in sources] == [
            "serviceAccountToken",
            "configMap",
            "downwardAPI",
        ]

    tell(story)


@pytest.mark.parametrize(("of_pod", "of_account", "mounted"), [
    (None, None, True), (False, None, False), (None, False, False), (True, False, True), (False, True, False),
])  # fmt: skip
def test_the_pod_and_then_its_account_say_whether_it_does(
    of_pod: bool | None, of_account: bool | None, mounted: bool
) -> None:
    async def story(world: World) -> None:
        account: Object = {"metadata": {"name": "robot"}}
        spec: Object = {"serviceAccountName": "robot"}
        if of_account is not None:
            account["automountServiceAccountToken"] = of_account
        if of_pod is not None:
            spec["automountServiceAccountToken"] = of_pod
        await world.create("serviceaccounts", account)
        await world.create("pods", pod("one", **spec))
        assert mounts_of(world.api.get(AGENT, "pods", SPACE, "one")) == ([MOUNT_PATH] if mounted else [])

    tell(story)


def test_a_container_that_has_something_there_keeps_it() -> None:
    async def story(world: World) -> None:
        wanted = pod("one", volumes=[{"name": "mine", "emptyDir": {}}])
        wanted["spec"]["containers"][0]["volumeMounts"] = [{"name": "mine", "mountPath": MOUNT_PATH}]
        await world.create("pods", wanted)
        made = world.api.get(AGENT, "pods", SPACE, "one")
        assert [volume["name"] for volume in made["spec"]["volumes"]] == ["mine"]

    tell(story)


def test_the_pods_of_controllers_have_tokens_too() -> None:
    async def story(world: World) -> None:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"] | {"restartPolicy": "Never"}}
        await world.create("jobs.batch", {"metadata": {"name": "job"}, "spec": {"template": template}})
        await world.settle()
        (made,) = world.pods()
        assert mounts_of(made) == [MOUNT_PATH]

    tell(story)


def test_roles_of_every_cluster_are_in_no_store() -> None:

    async def story(world: World) -> None:
        assert rules_of(world, "edit")
        rows = [row for row in world.api.store.current() if "rbac" in row.resource]
        assert rows == []

    tell(story)
