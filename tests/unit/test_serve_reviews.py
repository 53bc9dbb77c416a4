"""Reviews of one's own access."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import BadRequest, Invalid
from walras.kube import policy
from walras.kube.access.accounts import Accounts
from walras.kube.access.authoriser import Authoriser
from walras.kube.access.keys import SigningKey
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.registry_builtin import for_agents
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.reviews import Reviewer
from walras.kube.store.sqlite import MEMORY, SqliteStore

REGISTRY = for_agents()


class NoTokens:
    def identify(self, token: str) -> Identity | None:
        return None


def answer(plural: str, obj: dict[str, Any], groups: tuple[str, ...] = ("system:masters",)) -> dict[str, Any]:
    def refusal(verb: str, key: str, subresource: str) -> str:
        return policy.refusal("one", verb, key, subresource)

    async def ask() -> dict[str, Any]:
        store = SqliteStore(MEMORY)
        api = API(store, VirtualClock(), SequenceIds())
        await api.create_cluster("one")
        credentials = Credentials(NoTokens(), Accounts(api, SigningKey.generate()))
        caller = Identity("agent:one", groups, "one")
        reviewer = Reviewer(caller, "one", REGISTRY, refusal, Authoriser(api), credentials)
        try:
            return dict(reviewer.review(REGISTRY[plural], obj, "default")["status"])
        finally:
            store.close()

    return asyncio.run(ask())


def can(verb: str, plural: str, group: str = "", subresource: str = "") -> bool:
    attributes = {"verb": verb, "resource": plural, "group": group, "subresource": subresource}
    return bool(
        answer("selfsubjectaccessreviews.authorization.k8s.io", {"spec": {"resourceAttributes": attributes}})[
            "allowed"
        ]
    )


def test_an_agent_may_do_what_it_likes_with_its_own_objects() -> None:
    assert can("create", "pods") and can("delete", "jobs", "batch") and can("get", "pods", subresource="log")


def test_an_agent_may_not_make_what_the_market_makes() -> None:
    assert not can("create", "nodes")
    assert not can("delete", "gpuleases", "walras.dev")
    assert not can("update", "bids", "walras.dev", "status")
    assert can("create", "bids", "walras.dev") and can("patch", "nodes")


def test_everything_at_once_is_not_allowed_when_something_is_not() -> None:
    assert not can("*", "*", "*")
    assert can("get", "*", "*") and can("*", "pods")


def test_the_rules_say_the_same_as_the_questions() -> None:
    found = answer("selfsubjectrulesreviews.authorization.k8s.io", {"spec": {"namespace": "default"}})
    allowed = {
        (verb, rule["apiGroups"][0], name)
        for rule in found["resourceRules"]
        for name in rule["resources"]
        for verb in rule["verbs"]
    }
    assert ("create", "", "pods") in allowed and ("create", "", "nodes") not in allowed
    assert all(
        can(verb, name.partition("/")[0], group, name.partition("/")[2]) for verb, group, name in allowed
    )


def test_who_am_i_is_answered_from_the_token_and_not_from_the_body() -> None:
    found = answer("selfsubjectreviews.authentication.k8s.io", {"status": {"userInfo": {"username": "root"}}})
    assert found == {"userInfo": {"username": "agent:one", "groups": ["system:masters"]}}


def test_a_question_without_a_spec_is_invalid() -> None:
    with pytest.raises(Invalid, match="exactly one of nonResourceAttributes or resourceAttributes"):
        answer("selfsubjectaccessreviews.authorization.k8s.io", {})


def test_a_question_about_somebody_else_names_them() -> None:
    asked = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
    plural = "subjectaccessreviews.authorization.k8s.io"
    with pytest.raises(Invalid, match="at least one of user or group must be specified"):
        answer(plural, {"spec": asked})
    assert answer(plural, {"spec": {**asked, "user": "nobody"}}) == {"allowed": False}
    masters = {**asked, "user": "nobody", "groups": ["system:masters"]}
    assert answer(plural, {"spec": masters}) == {"allowed": True}


def test_masters_of_whom_is_asked_may_not_do_what_the_market_does() -> None:
    asked = {"resourceAttributes": {"verb": "create", "resource": "nodes"}, "groups": ["system:masters"]}
    found = answer("subjectaccessreviews.authorization.k8s.io", {"spec": asked})
    assert not found["allowed"] and "leased" in found["reason"]


def test_a_local_question_stays_in_its_namespace() -> None:
    asked = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "other"}, "user": "x"}
    with pytest.raises(Invalid, match=r"must match metadata\.namespace"):
        answer("localsubjectaccessreviews.authorization.k8s.io", {"spec": asked})


def test_what_everybody_may_do_is_allowed_by_the_roles_that_every_cluster_has() -> None:
    asked = {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/apis/apps"}}}
    plural, everybody = "selfsubjectaccessreviews.authorization.k8s.io", ("system:authenticated",)
    found = answer(plural, asked, everybody)
    assert found["allowed"] and found["reason"] == (
        'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group '
        '"system:authenticated"'
    )
    assert not answer(
        plural, {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}}, everybody
    )["allowed"]


def test_rules_are_asked_of_a_namespace() -> None:
    with pytest.raises(BadRequest, match="no namespace on request"):
        answer("selfsubjectrulesreviews.authorization.k8s.io", {"spec": {}})


def test_nobodys_token_is_not_authenticated() -> None:
    found = answer("tokenreviews.authentication.k8s.io", {"spec": {"token": "nonsense"}})
    assert not found.get("authenticated") and found["error"] == "invalid bearer token"
    with pytest.raises(BadRequest, match="token is required"):
        answer("tokenreviews.authentication.k8s.io", {"spec": {}})
