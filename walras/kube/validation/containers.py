"""Containers: names, images, ports, environment, probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import amounts, downward, names, security, volumes
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
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
    grace = spec.get("terminationGracePeriodSeconds")
    taken: set[str] = set()
    host_ports: set[str] = set()
    for index, container in enumerate(regular):
        at = f"{path}.containers[{index}]"
        common(faults, at, container, known, spec)
        _restarting(faults, at, container)
        _unique(faults, at, container, taken)
        _probes(faults, at, container, grace)
    for index, container in enumerate(regular):
        _host_ports(faults, f"{path}.containers[{index}]", container, host_ports)
    for index, container in enumerate(spec.get("initContainers") or ()):
        at = f"{path}.initContainers[{index}]"
        common(faults, at, container, known, spec)
        _restarting(faults, at, container)
        _unique(faults, at, container, taken)
        _host_ports(faults, at, container, set())
        if container.get("restartPolicy") == "Always":
            _probes(faults, at, container, grace)
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


def image(faults: Faults, path: str, container: Object) -> None:
    """That of a pod's container; a template's is not looked at so closely."""
    given = container.get("image", "")
    if given != given.strip():
        faults.invalid(f"{path}.image", given, "must not have leading or trailing whitespace")


def common(faults: Faults, path: str, container: Object, known: Mapping[str, Object], spec: Object) -> None:
    """What holds for every kind of container."""
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
    given = container.get("resources") or {}
    amounts.resources(faults, f"{path}.resources", given)
    amounts.claims(faults, f"{path}.resources.claims", given.get("claims") or (), spec)
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
            name = source[kind].get("name", "")
            if not name:
                faults.required(f"{at}.{kind}.name")
            else:
                faults.each(f"{at}.{kind}.name", name, names.generated(names.dns_subdomain, name))
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
        elif kind == "fileKeyRef":
            _file_key(faults, at, reference)
        else:
            name, key = reference.get("name", ""), reference.get("key", "")
            faults.each(f"{at}.name", name, names.dns_subdomain(name))
            if not key:
                faults.required(f"{at}.key")
            else:
                faults.each(f"{at}.key", key, names.config_key(key))
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


def _file_key(faults: Faults, path: str, reference: Object) -> None:
    key, volume, inner = (reference.get(field, "") for field in ("key", "volumeName", "path"))
    if not key:
        faults.required(f"{path}.key")
    else:
        faults.each(f"{path}.key", key, names.env_name(key))
    if not volume:
        faults.required(f"{path}.volumeName")
    else:
        faults.each(f"{path}.volumeName", volume, names.dns_label(volume))
    if not inner:
        faults.required(f"{path}.path")
    elif ".." in inner.split("/"):
        faults.invalid(f"{path}.path", inner, "must not contain '..'")


def key_files(faults: Faults, path: str, spec: Object) -> None:
    """The volumes of files that variables are read from: empty directories of the pod."""
    known = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            for number, variable in enumerate(container.get("env") or ()):
                reference = (variable.get("valueFrom") or {}).get("fileKeyRef")
                if reference is None:
                    continue
                name = reference.get("volumeName", "")
                at = f"{path}.{kind}[{index}].env[{number}].valueFrom.fileKeyRef.volumeName"
                if name not in known:
                    faults.not_found(at, name)
                elif known[name].get("emptyDir") is None:
                    faults.invalid(at, name, "referenced volume must be of type emptyDir")


def _probes(faults: Faults, path: str, container: Object, grace: int | None) -> None:
    lifecycle = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if lifecycle.get(name) is not None:
            _handler(faults, f"{path}.lifecycle.{name}", lifecycle[name], grace)
    for name in _PROBES:
        probe = container.get(name)
        if probe is None:
            continue
        at = f"{path}.{name}"
        _handler(faults, at, probe, grace)
        for field in (
            "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"
        ):  # fmt: skip
            faults.nonnegative(f"{at}.{field}", probe.get(field))
        own = probe.get("terminationGracePeriodSeconds")
        if own is not None and own <= 0:
            faults.invalid(f"{at}.terminationGracePeriodSeconds", own, "must be greater than 0")
        if own is not None and name == "readinessProbe":
            detail = "must not be set for readinessProbes"
            faults.invalid(f"{at}.terminationGracePeriodSeconds", own, detail)
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            faults.invalid(f"{at}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(faults: Faults, path: str, handler: Object, grace: int | None) -> None:
    given = [kind for kind in _HANDLERS if handler.get(kind) is not None]
    if not given:
        faults.required(path, "must specify a handler type")
    for number, kind in enumerate(given):
        action, at = handler[kind], f"{path}.{kind}"
        if number:
            faults.forbidden(at, "may not specify more than 1 handler type")
            continue
        if kind == "exec":
            if not action.get("command"):
                faults.required(f"{at}.command")
        elif kind in ("httpGet", "tcpSocket", "grpc"):
            faults.each(f"{at}.port", action.get("port", 0), names.port(action.get("port", 0)))
        elif grace is not None and not 0 <= action.get("seconds", 0) <= grace:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            faults.invalid(at, action.get("seconds", 0), detail)
        if kind == "httpGet":
            if action.get("scheme", "HTTP") not in ("HTTP", "HTTPS"):
                faults.not_supported(f"{at}.scheme", action["scheme"], ("HTTP", "HTTPS"))
            for header in action.get("httpHeaders") or ():
                name = header.get("name", "")
                faults.each(f"{at}.httpHeaders", name, names.header_name(name))
