"""The order of admission: what changes a write, then what it has to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from walras.kube import preparing
from walras.kube.admission import devices, limits, mutations, podsecurity, priority, quota, small, validating
from walras.kube.admission.call import REVIEW, Answered, Call, Review, Unanswered
from walras.kube.admission.configured import Configured
from walras.kube.admission.policies import Policies
from walras.kube.admission.reach import Reach
from walras.kube.admission.usage import DEVICE_CLAIMS
from walras.kube.admission.webhooks import Webhooks
from walras.kube.context import Context, Identity
from walras.kube.objects import NAMESPACES, PODS
from walras.kube.record import Object
from walras.kube.registry import Resource

if TYPE_CHECKING:
    from walras.kube.api import API
    from walras.kube.transaction import Transaction

Plugin = Callable[[Call], None]

# The plugins by the types that they are about, each in kube-apiserver's order.
MUTATING: Final[Mapping[str, tuple[Plugin, ...]]] = {
    PODS: (limits.mutate, priority.mutate, small.tolerations, small.runtime_class),
    small.NODES: (small.new_nodes,),
    small.CLAIMS: (small.storage_class, small.in_use),
    small.VOLUMES: (small.in_use,),
    small.INGRESSES: (small.ingress_class,),
}
VALIDATING: Final[Mapping[str, tuple[Plugin, ...]]] = {
    PODS: (limits.validate, podsecurity.validate),
    small.CLAIMS: (limits.validate, small.resized_claims),
    **dict.fromkeys((NAMESPACES, *podsecurity.TEMPLATED), (podsecurity.validate,)),
    priority.CLASSES: (priority.validate,),
    **dict.fromkeys((DEVICE_CLAIMS, devices.TEMPLATES), (devices.administered,)),
}
# Who makes what controllers make.
CONTROLLERS: Final = Identity("system:kube-controller-manager", ("system:masters", "system:authenticated"))


class Admission:
    """Admission of every cluster. Its plugins run while a write is staged, and see what is."""

    def __init__(self, api: API) -> None:
        self._api = api
        self.configured = Configured()
        self._policies = Policies()
        self.webhooks = Webhooks(api, self.configured, Reach(api))

    def watch(self) -> list[Callable[[], None]]:
        """Begins to follow what clusters configure; returns the calls that end it."""
        return self.configured.watch(self._api)

    def mutate(self, call: Call) -> None:
        """Changes the call's object in place. Raises Forbidden and its kin, or Unanswered."""
        plugins = MUTATING.get(call.key, ())
        for plugin in plugins:
            plugin(call)
        if self.configured.has(call.ctx.cluster):
            changed = mutations.mutate(call, self.configured, self._policies)
            if self.webhooks.mutate(call) or changed:
                # What others put into the object gets what objects get here too.
                for plugin in plugins:
                    plugin(call)

    def validate(self, call: Call) -> None:
        """Raises Forbidden and its kin, or Unanswered."""
        for plugin in VALIDATING.get(call.key, ()):
            plugin(call)
        if self.configured.has(call.ctx.cluster):
            validating.validate(call, self.configured, self._policies)
            self.webhooks.validate(call)
        # Last, so that nothing is counted that something else refuses.
        quota.validate(call)

    def trusted(self, tx: Transaction, cluster: str, kind: Resource, fresh: Object) -> None:
        """Admits an object that the server itself makes for somebody, such as a pod of a ReplicaSet."""
        metadata = fresh["metadata"]
        ctx = Context(CONTROLLERS, cluster, review=REVIEW.get())
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        call = Call(self._api, tx, ctx, "CREATE", kind, "", namespace, name, fresh, None)
        self.mutate(call)
        preparing.prepare(kind, fresh)
        self.validate(call)

    def review(self) -> Review:
        """Where the answers collect that a write waits for."""
        return Review(self._api.ids, self._api.clock)

    async def ask(self, unanswered: Unanswered) -> Answered:
        """Asks outside. Raises what refuses the write."""
        return await self.webhooks.ask(unanswered)
