"""Kubeconfig files: read one, and put contexts of Walras into one and take them out again.

Functions on configs are pure: they return a changed copy and keep everything that they do not know.
"""

from __future__ import annotations

import base64
import binascii
import copy
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from walras.core.errors import BadRequest, NotFound

Object = dict[str, Any]
PREFIX: Final = "walras-"
_EXTENSION: Final = "walras.dev"
_SECTIONS: Final = ("clusters", "users", "contexts")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a kubeconfig's current context leads, with what is needed to get in."""

    server: str
    token: str
    ca_pem: str
    insecure: bool
    namespace: str


class _Loader(yaml.SafeLoader):
    """Takes only JSON's types from plain scalars, so that 0123 and 2024-01-01 stay as written."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class declares it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:merge"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9]\d*)$"), [*"-0123456789"])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?(?:0|[1-9]\d*)\.\d+$"), [*"-0123456789"]
)


def user_path() -> Path:
    """The kubeconfig that kubectl would write to: the first of $KUBECONFIG, else ~/.kube/config."""
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(named[0] if named else "~/.kube/config").expanduser()


def parse(text: str | bytes, source: Path | str) -> Object:
    """The config in a YAML or JSON text; an empty text is an empty config. Raises BadRequest."""
    try:
        config = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with fewer types
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise BadRequest(f"{source} is not a kubeconfig: it holds no mapping")
    for section in _SECTIONS:
        entries = config.get(section) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadRequest(f"{source} is not a kubeconfig: {section} is not a list of mappings")
    return config


def load(path: Path) -> Object:
    """The config in a file; an absent file is an empty config. Raises BadRequest, OSError."""
    try:
        return parse(path.read_bytes(), path)
    except FileNotFoundError:
        return {}


def save(path: Path, config: Object) -> None:
    """Replaces the file at once, readable by its owner alone, through a symbolic link if it is one."""
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())


def write_private(path: Path, content: bytes) -> None:
    """Writes a file of mode 0600 that is either the old one or the whole new one. Raises OSError."""
    path = Path(os.path.realpath(path.expanduser()))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes files of mode 0600.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def connection(config: Object, source: Path) -> Connection:
    """Where the current context leads; files that it names are relative to `source`. Raises BadRequest."""
    current = config.get("current-context") or ""
    context = _body(config, "contexts", current)
    if context is None:
        raise BadRequest(f"{source} has no current context")
    cluster = _body(config, "clusters", context.get("cluster"))
    if cluster is None or not cluster.get("server"):
        raise BadRequest(f'{source}: context "{current}" names no cluster with a server')
    user = _body(config, "users", context.get("user")) or {}
    token = user.get("token") or ""
    if not token and user.get("tokenFile"):
        token = (source.parent / user["tokenFile"]).read_text().strip()
    return Connection(
        server=str(cluster["server"]),
        token=str(token),
        ca_pem=_ca(cluster, source),
        insecure=cluster.get("insecure-skip-tls-verify") is True,
        namespace=str(context.get("namespace") or ""),
    )


def _ca(cluster: Object, source: Path) -> str:
    data = cluster.get("certificate-authority-data")
    if data:
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, ValueError):
            raise BadRequest(f"{source}: certificate-authority-data is not base64 of PEM") from None
    file = cluster.get("certificate-authority")
    return (source.parent / file).read_text() if file else ""


def connected(config: Object, agent: str, credentials: Object) -> Object:
    """The config with a context walras-AGENT, made current, for what `credentials`' context leads to.

    The context remembers which one was current before; a context of that name already there is replaced.
    """
    theirs = credentials.get("current-context") or ""
    context = _body(credentials, "contexts", theirs)
    cluster = _body(credentials, "clusters", (context or {}).get("cluster"))
    user = _body(credentials, "users", (context or {}).get("user"))
    if context is None or cluster is None or user is None:
        raise BadRequest(f'the kubeconfig of agent "{agent}" has no complete current context')
    name = PREFIX + agent
    config = without(config, [name])
    config.setdefault("apiVersion", "v1")
    config.setdefault("kind", "Config")
    memory = {"name": _EXTENSION, "extension": {"previousContext": config.get("current-context") or ""}}
    body = {**context, "cluster": name, "user": name, "extensions": [memory]}
    for section, key, value in (
        ("clusters", "cluster", cluster),
        ("users", "user", user),
        ("contexts", "context", body),
    ):
        config[section] = [*(config.get(section) or []), {"name": name, key: copy.deepcopy(value)}]
    config["current-context"] = name
    return config


def without(config: Object, names: Iterable[str]) -> Object:
    """The config without these contexts of `connected`, and current what was current before them."""
    config = copy.deepcopy(config)
    for name in names:
        previous = _previous(config, name)
        if previous is None:
            continue
        for context in _ours(config):
            if _previous(config, context) == name:
                _remember(config, context, previous)
        for section in _SECTIONS:
            config[section] = [entry for entry in config.get(section) or [] if entry.get("name") != name]
        if config.get("current-context") == name:
            known = _body(config, "contexts", previous) is not None
            config["current-context"] = previous if known else ""
    return config


def disconnected(config: Object, agent: str | None) -> tuple[Object, list[str]]:
    """The config without an agent's context, or without all that `connected` made, and their names.

    Raises NotFound when there is no such context.
    """
    names = _ours(config) if agent is None else [PREFIX + agent]
    if agent is not None and _previous(config, names[0]) is None:
        known = ", ".join(name.removeprefix(PREFIX) for name in _ours(config))
        raise NotFound(f'not connected to "{agent}"' + (f"; connected to {known}" if known else ""))
    return without(config, names), names


def _ours(config: Object) -> list[str]:
    names = (str(entry.get("name")) for entry in config.get("contexts") or [])
    return [name for name in names if _previous(config, name) is not None]


def _previous(config: Object, name: str) -> str | None:
    """What was current before a context of ours; None when the context is not ours or not there."""
    memory = _memory(config, name)
    return None if memory is None else str(memory.get("previousContext") or "")


def _remember(config: Object, name: str, previous: str) -> None:
    memory = _memory(config, name)
    assert memory is not None, name
    memory["previousContext"] = previous


def _memory(config: Object, name: str) -> Object | None:
    for extension in (_body(config, "contexts", name) or {}).get("extensions") or []:
        if extension.get("name") == _EXTENSION and isinstance(extension.get("extension"), dict):
            memory: Object = extension["extension"]
            return memory
    return None


def _body(config: Object, section: str, name: Any) -> Object | None:
    """The entry of that name in a section, without its name."""
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            body = entry.get(section.removesuffix("s"))
            return body if isinstance(body, dict) else None
    return None
