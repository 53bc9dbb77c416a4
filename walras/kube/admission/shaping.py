"""What admission made of an object, in the form that is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from walras.kube import defaults, fields, versions
from walras.kube.admission.call import Call
from walras.kube.conversion.answers import converted
from walras.kube.record import Object
from walras.kube.registry import Resource

# Metadata that is the server's own.
_OWN: Final = (
    "name", "namespace", "uid", "creationTimestamp", "managedFields", "resourceVersion", "generation",
)  # fmt: skip


def stored(call: Call, version: Resource, changed: Object) -> Object:
    """`changed`, which is of `version`, with its defaults and with what is the server's as the call has it.

    Raises Undecodable where it is not of the type any more.
    """
    assert call.new is not None
    shaped, _ = fields.decode(version.schema, changed)
    made = _taken(call, version, shaped)
    made["apiVersion"], made["kind"] = call.new["apiVersion"], call.new["kind"]
    metadata, own = made.setdefault("metadata", {}), call.new["metadata"]
    for name in _OWN:
        if name in own:
            metadata[name] = own[name]
        else:
            metadata.pop(name, None)
    defaults.apply(call.resource.storage, made)
    return made


def _taken(call: Call, version: Resource, shaped: Object) -> Object:
    """An object of the version as the call has its objects. Raises Unconverted."""
    if version.converter is None:
        return versions.stored(version, shaped)
    return converted(replace(call.resource, converter=version.converter), (shaped,), call.ctx.conversions)[0]
