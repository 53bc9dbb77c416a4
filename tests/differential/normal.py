"""Answers made comparable: what each server chooses for itself is replaced by the order of its appearance."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from differential.sides import Answer

_UID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
# Of a Service: any free one.
_ADDRESS: Final = re.compile(r"\b10\.0\.\d{1,3}\.\d{1,3}\b")
_GENERATED: Final = re.compile(r"\b(?:gen-|Gen_|g-|kube-api-access-)[bcdfghjklmnpqrstvwxz2456789]{5}\b")
_VERSION: Final = re.compile(
    r"((?:resource ?version|current|version in record|precondition)[^0-9a-z]{1,4})(\d+)", re.I
)
_TOO_OLD: Final = re.compile(r"(too old resource version: )\d+ \(\d+\)")
# A value that is quoted in a message: an object as JSON, whose fields have no order.
_QUOTED: Final = re.compile(r'"(\{(?:[^"\\]|\\.)*\})"')
_ENDS: Final = "k8s.io/initial-events-end"
_TOKEN: Final = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")
_AGE: Final = re.compile(r"\d{1,3}s|\d{1,2}m(?:\d{1,2}s)?")
_NEAR_S: Final = 3600


class Normaliser:
    """For one side in one scenario: the same value gets the same name wherever it shows."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._names: dict[str, dict[str, str]] = {}

    def __call__(self, answer: Answer) -> Any:
        media = answer.headers.get("content-type", "").partition(";")[0]
        body = self._value(_events(answer.body), "")
        headers = {k: self._text(v) for k, v in answer.headers.items() if k != "content-type"}
        return {"status": answer.status, "type": media, "headers": headers, "body": body}

    def _named(self, kind: str, value: str) -> str:
        names = self._names.setdefault(kind, {})
        return names.setdefault(value, f"<{kind} {len(names) + 1}>")

    def _value(self, value: Any, key: str) -> Any:
        if isinstance(value, dict):
            fixed = self._metadata(value) if key == "metadata" else value
            if key == "details" and isinstance(fixed.get("causes"), list):
                # The real server tells some faults twice, and conflicts in the order of a Go map.
                causes = fixed["causes"]
                told = [each for i, each in enumerate(causes) if each not in causes[:i]]
                if any(each.get("reason") == "FieldManagerConflict" for each in told):
                    told.sort(key=str)
                fixed = {**fixed, "causes": told}
            return {self._text(name): self._value(fixed[name], name) for name in sorted(fixed)}
        if isinstance(value, list):
            return [self._value(each, "") for each in value]
        if isinstance(value, str):
            return self._text(value)
        return value

    def _metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """A list's version is the server's own affair; an object's tells whether it was written."""
        fixed = dict(metadata)
        version = fixed.get("resourceVersion")
        if isinstance(version, str) and version.isdigit():
            known = "uid" in metadata
            fixed["resourceVersion"] = self._named("rv", version) if known else "<revision>"
        if isinstance(fixed.get("managedFields"), list):
            # In order of their times, which may or may not be in the same second.
            fixed["managedFields"] = sorted(fixed["managedFields"], key=_who)
        if fixed.get("continue"):
            fixed["continue"] = "<continue>"
        return fixed

    def _text(self, text: str) -> str:
        text = text.replace(self._own, "SELF")
        if _AGE.fullmatch(text):
            return "<age>"
        if len(text) < 6:
            return text
        text = _QUOTED.sub(self._object, text)
        text = _UID.sub(lambda found: self._named("uid", found[0]), text)
        text = _TOKEN.sub("<token>", text)
        text = _TIME.sub(_time, text)
        text = _ADDRESS.sub(lambda found: self._named("address", found[0]), text)
        text = _TOO_OLD.sub(r"\1<n>", text)
        text = _VERSION.sub(lambda found: f"{found[1]}<n>", text)
        return _GENERATED.sub(lambda found: self._named("generated", found[0]), text)

    def _object(self, found: re.Match[str]) -> str:
        try:
            value = json.loads(json.loads(found[0]))
        except ValueError:
            return found[0]
        return json.dumps(json.dumps(self._value(value, ""), sort_keys=True))


def _events(body: Any) -> Any:
    """A watch without the bookmarks that come when the server likes."""
    if not isinstance(body, list):
        return body
    return [each for each in body if each.get("type") != "BOOKMARK" or _ENDS in str(each.get("object"))]


def _who(entry: Any) -> str:
    return str([entry.get(name) for name in ("operation", "manager", "apiVersion", "subresource")])


def _time(found: re.Match[str]) -> str:
    text = found[0]
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    near = abs((at - datetime.now(UTC)).total_seconds()) < _NEAR_S
    return ("<now.us>" if "." in text else "<now>") if near else text
