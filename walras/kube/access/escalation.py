"""Nobody grants what they do not have, unless a rule lets them escalate or bind."""

from __future__ import annotations

from typing import Final

from walras.core.errors import Forbidden, Invalid, NotFound
from walras.kube import policy
from walras.kube.access import rules
from walras.kube.access.authoriser import Authoriser
from walras.kube.access.words import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    MASTERS,
    ROLE_BINDINGS,
    ROLES,
    Attributes,
    Object,
    Rule,
)
from walras.kube.context import Context
from walras.kube.objects import not_found
from walras.kube.registry import Resource

_ROLES: Final = (ROLES, CLUSTER_ROLES)
_BINDINGS: Final = (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
# What deletion needs to change; it grants nothing.
_GARBAGE: Final = ("ownerReferences", "finalizers", "managedFields")
_AGGREGATING: Final = "must have cluster-admin privileges to use the aggregationRule"


def check(ctx: Context, resource: Resource, new: Object, old: Object | None) -> None:
    """Raises Forbidden when a role or binding would give more than the caller has, NotFound for a role."""
    if resource.key not in _ROLES + _BINDINGS or ctx.access is None or MASTERS in ctx.identity.groups:
        return
    if old is not None and _substance(old) == _substance(new):
        return
    if resource.key in _ROLES:
        _check_role(ctx, ctx.access, resource, new, old)
    else:
        _check_binding(ctx, ctx.access, resource, new)


def _substance(obj: Object) -> Object:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _GARBAGE}
    return {**obj, "metadata": metadata}


def _check_role(
    ctx: Context, access: Authoriser, resource: Resource, new: Object, old: Object | None
) -> None:
    namespace = str(new["metadata"].get("namespace") or "")
    name = str(new["metadata"].get("name") or "")
    # On creation the request has no name to be allowed.
    escalate = Attributes("escalate", GROUP, resource.plural, "", namespace, name if old is not None else "")
    if access.decide(ctx.identity, ctx.cluster, escalate).allowed:
        return
    _confirm(ctx, access, resource, name, namespace, new.get("rules") or [])
    if any(((each or {}).get("aggregationRule") or {}).get("clusterRoleSelectors") for each in (new, old)):
        try:
            _confirm(ctx, access, resource, name, namespace, list(rules.EVERYTHING))
        except Forbidden:
            raise policy.forbidden(resource.key, name, _AGGREGATING) from None


def _check_binding(ctx: Context, access: Authoriser, resource: Resource, new: Object) -> None:
    namespace = str(new["metadata"].get("namespace") or "")
    name, reference = str(new["metadata"].get("name") or ""), new.get("roleRef") or {}
    plural = {"ClusterRole": "clusterroles", "Role": "roles"}.get(str(reference.get("kind")))
    if plural is None:
        # Validation says so too, to those whom it does not tell what they may not know.
        raise policy.forbidden(resource.key, name, "roleRef.kind is neither Role nor ClusterRole")
    group = str(reference.get("apiGroup") or "")
    bind = Attributes("bind", group, plural, "", namespace, str(reference.get("name") or ""))
    if access.decide(ctx.identity, ctx.cluster, bind).allowed:
        return
    try:
        wanted = access.referred(ctx.cluster, reference, namespace)
    except NotFound:
        # In the words of kube-apiserver, which names the type of the binding and not that of the role.
        raise not_found(resource.key, str(reference.get("name") or "")) from None
    _confirm(ctx, access, resource, name, namespace, wanted)


def _confirm(
    ctx: Context, access: Authoriser, resource: Resource, name: str, namespace: str, wanted: list[Rule]
) -> None:
    """Raises Forbidden unless the caller has every one of the rules itself."""
    try:
        lacking = rules.missing(access.rules_for(ctx.identity, ctx.cluster, namespace), wanted)
    except rules.TooManyRules:
        raise Invalid(f'{resource.key} "{name}": its rules are too many to compare; split it up') from None
    if lacking:
        said = "\n".join(sorted({rules.text(rule) for rule in rules.compact(lacking)}))
        who = f'user "{ctx.identity.user}" (groups={rules.quoted(ctx.identity.groups)})'
        raise policy.forbidden(
            resource.key, name, f"{who} is attempting to grant RBAC permissions not currently held:\n{said}"
        )
