"""Errors as Status objects."""

from __future__ import annotations

import json

from walras.core.errors import Cause, Invalid, NotFound, TooManyRequests, Unauthorized
from walras.kube.serve import status


def test_an_error_says_its_reason_its_causes_and_what_it_is_about() -> None:
    error = Invalid(
        'pods "x" is invalid',
        causes=(Cause("FieldValueRequired", "Required value", "spec.containers"),),
        details={"name": "x", "kind": "pods"},
    )
    answer = status.answer(error)
    assert answer.status == 422
    assert json.loads(answer.body) == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": 'pods "x" is invalid', "reason": "Invalid", "code": 422,
        "details": {
            "name": "x", "kind": "pods",
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"}
            ],
        },
    }  # fmt: skip


def test_an_error_that_passes_says_when_to_come_back() -> None:
    answer = status.answer(TooManyRequests("slow down", retry_after_s=3))
    assert dict(answer.headers)[b"retry-after"] == b"3"
    assert json.loads(answer.body)["details"] == {"retryAfterSeconds": 3}


def test_a_missing_token_is_answered_with_the_scheme_that_is_wanted() -> None:
    assert dict(status.answer(Unauthorized("Unauthorized")).headers)[b"www-authenticate"].startswith(
        b"Bearer"
    )


def test_what_is_not_found_always_has_details_to_look_into() -> None:
    assert status.failure(NotFound("nothing here"))["details"] == {}
