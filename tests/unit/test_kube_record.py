"""JSON from outside: whatever cannot be read is refused in words, wherever it comes from."""

from __future__ import annotations

import base64

import pytest
from support.caller import Caller, Object, run

from walras.core.errors import BadRequest, Invalid
from walras.kube.admission import review
from walras.kube.admission.http import CalloutFailed
from walras.kube.record import parse

DEEP = b"[" * 5_000 + b"]" * 5_000
UNREADABLE = (b"", b"{", DEEP, b'{"a":"\xff"}')


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_json_or_nested_too_deep_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"truncated|recursion|utf-8"):
        parse(text)


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_webhook_that_answers_what_cannot_be_read_has_failed(text: bytes) -> None:
    with pytest.raises(CalloutFailed):
        review.answered(text, "v1", "u", mutating=True)


def test_a_list_cannot_go_on_from_a_token_that_cannot_be_read() -> None:
    async def story(agent: Caller) -> None:
        with pytest.raises(BadRequest):
            agent.verbs.list(agent.context(), agent.resource("configmaps"), "default", continue_=token)

    token = base64.urlsafe_b64encode(DEEP).rstrip(b"=").decode()
    run(story)


def test_managers_of_values_that_cannot_be_read_are_nobody() -> None:
    async def story(agent: Caller) -> None:
        entry = {
            "manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {f"v:{DEEP.decode()}": {}}},
        }  # fmt: skip
        made = await agent.create("configmaps", {"metadata": {"name": "x", "managedFields": [entry]}})
        assert "m" not in [each["manager"] for each in made["metadata"].get("managedFields", ())]

    run(story)


def test_a_registrys_keys_may_have_bytes_that_are_no_text_as_go_reads_them() -> None:
    async def story(agent: Caller) -> None:
        def secret(name: str, content: bytes) -> Object:
            data = {".dockerconfigjson": base64.b64encode(content).decode()}
            return {"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson", "data": data}

        await agent.create("secrets", secret("a", b'{"a":"\xff"}'))
        with pytest.raises(Invalid, match="invalid character"):
            await agent.create("secrets", secret("b", b"\xff{}"))

    run(story)
