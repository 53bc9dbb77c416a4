"""Reviews: who is somebody, what may they do, whose is a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import BadRequest, Cause, Invalid, NotFound
from walras.kube.access.authoriser import Authoriser
from walras.kube.access.words import MASTERS, Attributes
from walras.kube.context import Identity
from walras.kube.registry import Registry, Resource
from walras.kube.serve.answers import encode
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.discovery import subresource_verbs
from walras.kube.serve.status import NOT_SERVED

Object = dict[str, Any]
# (verb, resource key, subresource) -> the reason why nobody may, "" where the market has nothing against it.
Policy = Callable[[str, str, str], str]

GROUPS: Final = ("authorization.k8s.io", "authentication.k8s.io")


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Answers the reviews of one cluster for one caller."""

    identity: Identity
    cluster: str
    registry: Registry
    policy: Policy
    access: Authoriser
    tokens: Credentials

    def review(self, resource: Resource, obj: Object, namespace: str = "") -> Object:
        """The review with its status filled in. Raises BadRequest, Invalid, NotFound."""
        spec = obj.get("spec") or {}
        if not isinstance(spec, dict):
            raise BadRequest("spec: Invalid value: must be an object")
        match resource.plural:
            case "selfsubjectreviews":
                status: Object = {"userInfo": user_info(self.identity)}
            case "selfsubjectaccessreviews":
                status = self._access(self.identity, _asked(resource, spec))
            case "subjectaccessreviews":
                status = self._access(self._subject(resource, spec), _asked(resource, spec))
            case "localsubjectaccessreviews":
                _check_local(resource, spec, namespace)
                status = self._access(self._subject(resource, spec), _asked(resource, spec))
            case "selfsubjectrulesreviews":
                status = self._rules(spec)
            case "tokenreviews":
                status = self._token(spec)
            case _:
                raise NotFound(NOT_SERVED)
        metadata = obj.get("metadata")
        return {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": metadata if isinstance(metadata, dict) else {},
            "spec": spec,
            "status": status,
        }

    def _subject(self, resource: Resource, spec: Object) -> Identity:
        """Whom the review is about: in this cluster, whatever it is called. Raises Invalid."""
        user, groups = _text(spec, "user"), _texts(spec, "groups")
        if not user and not groups:
            why = 'Invalid value: "": at least one of user or group must be specified'
            raise _invalid(resource, "spec.user", why)
        return Identity(user, groups, self.cluster, _text(spec, "uid"))

    def _access(self, identity: Identity, asked: Attributes) -> Object:
        decision = self.access.decide(identity, self.cluster, asked)
        if not decision.allowed:
            return {"allowed": False, **({"reason": decision.reason} if decision.reason else {})}
        reason = "" if asked.path else self._refusal(asked)
        if reason:
            return {"allowed": False, "reason": reason}
        return {"allowed": True, **({"reason": decision.reason} if decision.reason else {})}

    def _refusal(self, asked: Attributes) -> str:
        """What the market has against it."""
        if "*" in (asked.verb, asked.resource, asked.group):
            covered = (rule for rule in _every(self.registry) if _covers(asked, rule))
            return next(filter(None, (self.policy(*rule) for rule in covered)), "")
        return self.policy(asked.verb, asked.key, asked.subresource)

    def _rules(self, spec: Object) -> Object:
        namespace = _text(spec, "namespace")
        if not namespace:
            raise BadRequest("no namespace on request")
        if MASTERS in self.identity.groups:
            return _all_rules(self.registry, self.policy)
        found = self.access.rules_for(self.identity, self.cluster, namespace)
        names = ("verbs", "apiGroups", "resources", "resourceNames")
        return {
            "resourceRules": [
                {name: rule[name] for name in names if rule.get(name)}
                for rule in found
                if rule.get("resources")
            ],
            "nonResourceRules": [
                {name: rule[name] for name in ("verbs", "nonResourceURLs")}
                for rule in found
                if rule.get("nonResourceURLs")
            ],
            "incomplete": False,
        }

    def _token(self, spec: Object) -> Object:
        token, audiences = _text(spec, "token"), _texts(spec, "audiences")
        if not token:
            raise BadRequest("token is required for TokenReview in authentication")
        found = self.tokens.review(token, self.cluster, audiences)
        if found is None:
            return {"user": {}, "error": "invalid bearer token"}
        return {
            "authenticated": True,
            "user": user_info(found.identity),
            **({"audiences": list(found.audiences)} if found.audiences else {}),
        }


def user_info(identity: Identity) -> Object:
    """An authentication.k8s.io UserInfo."""
    return {
        "username": identity.user,
        **({"uid": identity.uid} if identity.uid else {}),
        "groups": list(identity.groups),
        **({"extra": {key: list(values) for key, values in identity.extra}} if identity.extra else {}),
    }


def _text(spec: Object, name: str) -> str:
    value = spec.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"spec.{name}: Invalid value: must be a string")
    return value or ""


def _texts(spec: Object, name: str) -> tuple[str, ...]:
    values = spec.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BadRequest(f"spec.{name}: Invalid value: must be a list of strings")
    return tuple(values)


def _invalid(resource: Resource, field: str, message: str) -> Invalid:
    return Invalid(
        f'{resource.kind}.{resource.group} "" is invalid: {field}: {message}',
        causes=(Cause("FieldValueInvalid", message, field),),
        details={"group": resource.group, "kind": resource.kind},
    )


def _asked(resource: Resource, spec: Object) -> Attributes:
    """What the review asks about. Raises BadRequest, Invalid."""
    attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    for given in (attributes, path):
        if given is not None and not isinstance(given, dict):
            raise BadRequest("spec: Invalid value: its attributes must be objects")
    if attributes is None and path is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _invalid(resource, "spec.resourceAttributes", f"Invalid value: null: {why}")
    if attributes is not None and path is not None:
        why = f"Invalid value: {_shown(path)}: cannot be specified in combination with resourceAttributes"
        raise _invalid(resource, "spec.nonResourceAttributes", why)
    if path is not None:
        return Attributes(_text(path, "verb"), path=_text(path, "path") or "/")
    assert attributes is not None
    names = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attributes(**{name: _text(attributes, name) for name in names})


def _shown(path: Any) -> str:
    """NonResourceAttributes as kube-apiserver prints them."""
    given = path if isinstance(path, dict) else {}
    return encode({"Path": str(given.get("path") or ""), "Verb": str(given.get("verb") or "")}).decode()


def _check_local(resource: Resource, spec: Object, namespace: str) -> None:
    if spec.get("nonResourceAttributes") is not None:
        shown = _shown(spec["nonResourceAttributes"])
        why = f"Invalid value: {shown}: disallowed on this kind of request"
        raise _invalid(resource, "spec.nonResourceAttributes", why)
    attributes = spec.get("resourceAttributes")
    given = attributes.get("namespace") if isinstance(attributes, Mapping) else None
    if attributes is not None and given != namespace:
        why = f'Invalid value: "{str(given or "")[:64]}": must match metadata.namespace'
        raise _invalid(resource, "spec.resourceAttributes.namespace", why)


def _covers(asked: Attributes, rule: tuple[str, str, str]) -> bool:
    rule_plural, _, rule_group = rule[1].partition(".")
    return (
        asked.verb in ("*", rule[0])
        and asked.group in ("*", rule_group)
        and asked.resource in ("*", rule_plural)
        and (asked.resource == "*" or not rule[2])
    )


def _every(registry: Registry) -> list[tuple[str, str, str]]:
    return [
        (verb, resource.key, subresource)
        for resource in registry
        for subresource in ("", *resource.subresources)
        for verb in (subresource_verbs(subresource) if subresource else resource.verbs)
    ]


def _all_rules(registry: Registry, policy: Policy) -> Object:
    """What somebody may do who may do everything that the market leaves."""
    by_verbs: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for resource in registry:
        for subresource in ("", *resource.subresources):
            verbs = subresource_verbs(subresource) if subresource else resource.verbs
            allowed = tuple(verb for verb in verbs if not policy(verb, resource.key, subresource))
            name = f"{resource.plural}/{subresource}" if subresource else resource.plural
            if allowed:
                by_verbs.setdefault((resource.group, allowed), []).append(name)
    return {
        "resourceRules": [
            {"verbs": list(verbs), "apiGroups": [group], "resources": names}
            for (group, verbs), names in by_verbs.items()
        ],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }
