"""Containers: names, images, ports, environment, probes, resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import canonical, parse_milli
from walras.kube.validation import downward, names, security, volumes
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_STANDARD: Final = ("cpu", "memory", "ephemeral-storage")
_KUBERNETES: Final = "kubernetes.io/"
_RESTARTS: Final = ("Always", "Never", "OnFailure")
_RESTART_ACTIONS: Final = ("Restart", "RestartAllContainers")
_RESTART_RULES_MAX: Final = 20
_EXIT_CODES_MAX: Final = 255
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_FIELD_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def containers(faults: Faults, path: str, spec: Object, known: Mapping[str, Object]) -> None:
    """The regular and init containers of a pod spec; `known` are its good volumes by name."""
    regular = spec.get("containers") or ()
    if not regular:
        faults.required(f"{path}.containers")
    taken: set[str] = set()
    host_ports: set[str] = set()
    for index, container in enumerate(regular):
        at = f"{path}.containers[{index}]"
        _common(faults, at, container, known, spec)
        _restarting(faults, at, container)
        _unique(faults, at, container, taken)
        _probes(faults, at, container)
        _host_ports(faults, at, container, host_ports)
    for index, container in enumerate(spec.get("initContainers") or ()):
        at = f"{path}.initContainers[{index}]"
        _common(faults, at, container, known, spec)
        _restarting(faults, at, container)
        _unique(faults, at, container, taken)
        _host_ports(faults, at, container, set())
        if container.get("restartPolicy") == "Always":
            _probes(faults, at, container)
        else:
            for name in ("lifecycle", *_PROBES):
                if container.get(name) is not None:
                    detail = "may not be set for init containers without restartPolicy=Always"
                    faults.forbidden(f"{at}.{name}", detail)


def _unique(faults: Faults, path: str, container: Object, taken: set[str]) -> None:
    name = container.get("name", "")
    if name and name in taken:
        faults.duplicate(f"{path}.name", name)
    taken.add(name)


def _restarting(faults: Faults, path: str, container: Object) -> None:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None:
        if rules:
            detail = "must specify restartPolicy when restart rules are used"
            faults.required(f"{path}.restartPolicy", detail)
        return
    if policy not in _RESTARTS:
        faults.not_supported(f"{path}.restartPolicy", policy, _RESTARTS)
    if len(rules) > _RESTART_RULES_MAX:
        faults.too_many(f"{path}.restartPolicyRules", len(rules), _RESTART_RULES_MAX)
    for index, rule in enumerate(rules):
        at, codes = f"{path}.restartPolicyRules[{index}]", rule.get("exitCodes")
        if rule.get("action", "") not in _RESTART_ACTIONS:
            faults.not_supported(f"{at}.action", rule.get("action", ""), _RESTART_ACTIONS)
        if codes is None:
            faults.required(f"{at}.exitCodes", "must be specified")
            continue
        if codes.get("operator", "") not in ("In", "NotIn"):
            faults.not_supported(f"{at}.exitCodes.operator", codes.get("operator", ""), ("In", "NotIn"))
        if len(codes.get("values") or ()) > _EXIT_CODES_MAX:
            faults.too_many(f"{at}.exitCodes.values", len(codes["values"]), _EXIT_CODES_MAX)


def _resizing(faults: Faults, path: str, policies: Any, restart: Any) -> None:
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        name, how = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if name in seen:
            faults.duplicate(f"{path}[{index}]", name)
        seen.add(name)
        faults.one_of(path, name, ("cpu", "memory"))
        faults.one_of(path, how, ("NotRequired", "RestartContainer"))
        if restart == "Never" and how != "NotRequired":
            faults.invalid(path, how, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")


def _common(faults: Faults, path: str, container: Object, known: Mapping[str, Object], spec: Object) -> None:
    name = container.get("name", "")
    if not name:
        faults.required(f"{path}.name")
    else:
        faults.each(f"{path}.name", name, names.dns_label(name))
    if not container.get("image"):
        faults.required(f"{path}.image")
    policy = container.get("terminationMessagePolicy")
    faults.one_of(f"{path}.terminationMessagePolicy", policy, ("File", "FallbackToLogsOnError"))
    _ports(faults, f"{path}.ports", container.get("ports") or ())
    _environment(faults, path, container)
    volumes.mounts(faults, path, container, known)
    faults.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    resources(faults, f"{path}.resources", container.get("resources") or {})
    policies = container.get("resizePolicy") or ()
    _resizing(faults, f"{path}.resizePolicy", policies, spec.get("restartPolicy"))
    context = container.get("securityContext") or {}
    security.of_container(faults, f"{path}.securityContext", context, host_users=spec.get("hostUsers", True))


def _ports(faults: Faults, path: str, ports: Any) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at, name = f"{path}[{index}]", port.get("name")
        if name:
            said = names.port_name(name)
            faults.each(f"{at}.name", name, said)
            if not said and name in seen:
                faults.duplicate(f"{at}.name", name)
            seen.add(name)
        if not port.get("containerPort"):
            faults.required(f"{at}.containerPort")
        else:
            faults.each(
                f"{at}.containerPort", port["containerPort"], names.port_number(port["containerPort"])
            )
        if port.get("hostPort"):
            faults.each(f"{at}.hostPort", port["hostPort"], names.port_number(port["hostPort"]))
        faults.one_of(f"{at}.protocol", port.get("protocol"), _PROTOCOLS)


def _host_ports(faults: Faults, path: str, container: Object, taken: set[str]) -> None:
    for index, port in enumerate(container.get("ports") or ()):
        if port.get("hostPort"):
            text = f"{port.get('protocol')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if text in taken:
                faults.duplicate(f"{path}.ports[{index}].hostPort", text)
            taken.add(text)


def _environment(faults: Faults, path: str, container: Object) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        at, name = f"{path}.env[{index}]", variable.get("name", "")
        if not name:
            faults.required(f"{at}.name")
        else:
            faults.each(f"{at}.name", name, names.env_name(name))
        if variable.get("valueFrom") is not None:
            _value_from(faults, f"{at}.valueFrom", variable["valueFrom"], bool(variable.get("value")))
    for index, source in enumerate(container.get("envFrom") or ()):
        at = f"{path}.envFrom[{index}]"
        if source.get("prefix"):
            faults.each(f"{at}.prefix", source["prefix"], names.env_name(source["prefix"]))
        given = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in given:
            if not source[kind].get("name"):
                faults.required(f"{at}.{kind}.name")
        if not given:
            faults.invalid(f"{path}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            faults.invalid(f"{path}.envFrom", "", "may not have more than one field specified at a time")


def _value_from(faults: Faults, path: str, source: Object, has_value: bool) -> None:
    given = [kind for kind in _FIELD_SOURCES if source.get(kind) is not None]
    for kind in given:
        reference, at = source[kind], f"{path}.{kind}"
        if kind == "fieldRef":
            downward.field(faults, at, reference, downward.IN_VARIABLES)
        elif kind == "resourceFieldRef":
            downward.resource(faults, at, reference, in_file=False)
        elif kind != "fileKeyRef":
            for name in ("name", "key"):
                if not reference.get(name):
                    faults.required(f"{at}.{name}")
    if not given:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or "
            "`fileKeyRef`"
        )
        faults.invalid(path, "", detail)
    elif has_value:
        faults.invalid(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        faults.invalid(path, "", "may not have more than one field specified at a time")


def _probes(faults: Faults, path: str, container: Object) -> None:
    for name in _PROBES:
        probe = container.get(name)
        if probe is None:
            continue
        at = f"{path}.{name}"
        _handler(faults, at, probe)
        for field in (
            "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"
        ):  # fmt: skip
            faults.nonnegative(f"{at}.{field}", probe.get(field))
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            faults.invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")
    lifecycle = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if lifecycle.get(name) is not None:
            _handler(faults, f"{path}.lifecycle.{name}", lifecycle[name])


def _handler(faults: Faults, path: str, handler: Object) -> None:
    given = [kind for kind in _HANDLERS if handler.get(kind) is not None]
    if not given:
        faults.required(path, "must specify a handler type")
    for kind in given[1:]:
        faults.forbidden(f"{path}.{kind}", "may not specify more than 1 handler type")
    for kind in given[:1]:
        action, at = handler[kind], f"{path}.{kind}"
        if kind == "exec":
            if not action.get("command"):
                faults.required(f"{at}.command")
        elif kind in ("httpGet", "tcpSocket", "grpc"):
            faults.each(f"{at}.port", action.get("port", 0), names.port(action.get("port", 0)))
        if kind == "httpGet":
            if action.get("scheme", "HTTP") not in ("HTTP", "HTTPS"):
                faults.not_supported(f"{at}.scheme", action["scheme"], ("HTTP", "HTTPS"))
            for header in action.get("httpHeaders") or ():
                name = header.get("name", "")
                faults.each(f"{at}.httpHeaders", name, names.header_name(name))


# ---- resources


def is_native(name: str) -> bool:
    """Whether Kubernetes itself defines the resource, so that more of it may be promised than there is."""
    return "/" not in name or _KUBERNETES in name


def _overcommits(name: str) -> bool:
    return is_native(name) and not name.startswith("hugepages-")


def resources(faults: Faults, path: str, given: Object) -> None:
    """Requests and limits of a container."""
    requests, limits = given.get("requests") or {}, given.get("limits") or {}
    for name, amount in sorted(limits.items()):
        _resource(faults, f"{path}.limits[{name}]", name, amount)
    for name, amount in sorted(requests.items()):
        _resource(faults, f"{path}.requests[{name}]", name, amount)
        at = f"{path}.requests"
        if name in limits:
            asked, most = parse_milli(amount), parse_milli(limits[name])
            shown = f"{name} limit of {canonical(str(limits[name]))}"
            if asked != most and not _overcommits(name):
                faults.invalid(at, amount, f"must be equal to {shown}")
            elif asked > most:
                faults.invalid(at, amount, f"must be less than or equal to {shown}")
        elif not _overcommits(name):
            faults.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def _resource(faults: Faults, path: str, name: str, amount: Any) -> None:
    said = names.qualified_name(name)
    faults.each(path, name, said)
    if not said:
        if "/" not in name:
            if name not in _STANDARD and not name.startswith("hugepages-"):
                faults.invalid(path, name, "must be a standard resource for containers")
        elif not is_native(name) and names.qualified_name(f"requests.{name}"):
            faults.invalid(path, name, "doesn't follow extended resource name standard")
    quantity(faults, path, amount)
    if not is_native(name) and parse_milli(amount) % 1000:
        faults.invalid(path, amount, "must be an integer")


def quantity(faults: Faults, path: str, amount: Any) -> None:
    if parse_milli(amount) < 0:
        faults.invalid(path, amount, "must be greater than or equal to 0")
