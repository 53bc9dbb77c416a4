"""Reviews of one's own access."""

from __future__ import annotations

from typing import Any

import pytest

from walras.core.errors import BadRequest
from walras.kube import policy
from walras.kube.registry_builtin import for_agents
from walras.kube.serve.reviews import review

REGISTRY = for_agents()


def answer(plural: str, obj: dict[str, Any]) -> dict[str, Any]:
    resource = REGISTRY[plural]

    def refusal(verb: str, key: str, subresource: str) -> str:
        return policy.refusal("one", verb, key, subresource)

    return dict(review(resource, obj, REGISTRY, refusal, "agent:one", ("walras:agents",))["status"])


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
    assert found == {"userInfo": {"username": "agent:one", "groups": ["walras:agents"]}}


def test_a_question_without_a_spec_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="spec"):
        answer("selfsubjectaccessreviews.authorization.k8s.io", {})
