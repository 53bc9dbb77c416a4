"""Admission webhooks: which of them a write concerns, and what comes of asking them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from walras.core.errors import BadRequest, Cause, InternalError, WalrasError
from walras.kube import cel
from walras.kube.admission import expressions, review, shaping
from walras.kube.admission.call import Answered, Call, Phase, Unanswered
from walras.kube.admission.configured import MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, Configured
from walras.kube.admission.http import CalloutFailed, CalloutRefused
from walras.kube.admission.matching import matched, selects_namespace, selects_object
from walras.kube.admission.reach import Reach, shown_url
from walras.kube.patch import json_patch, same
from walras.kube.policy import forbidden
from walras.kube.record import Object, copy
from walras.kube.registry import Resource

if TYPE_CHECKING:
    from walras.kube.api import API

T = TypeVar("T")

TIMEOUT_S_DEFAULT: Final = 10
TIMEOUT_S_MAX: Final = 30
NOTE_KEY_MAX: Final = 316
_NO_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun")


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook, and the version of the type in which it wants to see a write."""

    raw: Mapping[str, Any]
    version: Resource

    @property
    def name(self) -> str:
        return str(self.raw.get("name", ""))

    @property
    def fails(self) -> bool:
        return bool(self.raw.get("failurePolicy", "Fail") == "Fail")


class Webhooks:
    """Asks the webhooks of every cluster. A write waits for them as described in call.py."""

    def __init__(self, api: API, configured: Configured, reach: Reach) -> None:
        self._api = api
        self._configured = configured
        self.reach = reach

    def mutate(self, call: Call) -> bool:
        """Puts in place what the webhooks made of the object; whether they changed it.

        Raises Unanswered where they have not been asked about exactly this yet.
        """
        found = self._answer(call, "mutating")
        if found is None or call.new is None or found.result is None or same(found.result, call.new):
            return False
        call.new.clear()
        call.new.update(copy(found.result))
        return True

    def validate(self, call: Call) -> None:
        self._answer(call, "validating")

    def _answer(self, call: Call, phase: Phase) -> Answered | None:
        hooks = list(self._concerned(call, phase))
        if not hooks:
            return None
        found = call.ctx.review.find(phase, call.old, call.new) if call.ctx.review else None
        if found is None:
            raise Unanswered(call, phase, hooks)
        if found.refusal is not None:
            raise found.refusal
        return found

    def _concerned(self, call: Call, phase: Phase) -> Iterator[Hook]:
        kind = MUTATING_WEBHOOKS if phase == "mutating" else VALIDATING_WEBHOOKS
        for configuration in self._configured.of(call.ctx.cluster, kind):
            for raw in configuration.get("webhooks") or ():
                hook = self._concerns(raw, call)
                if hook is not None:
                    yield hook

    def _concerns(self, raw: Mapping[str, Any], call: Call) -> Hook | None:
        registry = self._api.registry(call.ctx.cluster)
        policy = raw.get("matchPolicy") or "Equivalent"
        version = matched(raw.get("rules") or (), policy, call, registry)
        if version is None or not selects_namespace(raw.get("namespaceSelector"), call):
            return None
        if not selects_object(raw.get("objectSelector"), call):
            return None
        hook = Hook(raw, version)
        return hook if _meets(hook, call) else None

    # Asking

    async def ask(self, unanswered: Unanswered) -> Answered:
        """Asks everybody that the write concerns. Raises what refuses it."""
        call, phase = unanswered.call, unanswered.phase
        before = copy(call.new) if call.new is not None else None
        asked_about = replace(call, new=copy(call.new) if call.new is not None else None)
        if phase == "mutating":
            await self._mutated(asked_about)
        else:
            await asyncio.gather(*(self._validated(asked_about, hook) for hook in unanswered.asked))
        return Answered(phase, call.old, before, asked_about.new)

    async def _known(self, call: Call, look: Callable[[], T]) -> T:
        """What `look` finds, once conversion webhooks have said what it looks at."""
        return await self._api.converter.known(call.ctx, look)

    async def _mutated(self, call: Call) -> None:
        """One after another, each on what those before it made; some again, if others changed more since."""
        again: list[Mapping[str, Any]] = []
        past: list[Mapping[str, Any]] = []
        for configuration in self._configured.of(call.ctx.cluster, MUTATING_WEBHOOKS):
            for raw in configuration.get("webhooks") or ():
                hook = await self._known(call, partial(self._concerns, raw, call))
                if hook is None:
                    continue
                if await self._patched(call, hook):
                    again += [each for each in past if each not in again]
                    again = [each for each in again if each is not raw]
                if raw.get("reinvocationPolicy") == "IfNeeded":
                    past.append(raw)
        for raw in again:
            hook = await self._known(call, partial(self._concerns, raw, call))
            if hook is not None:
                await self._patched(call, hook)

    async def _patched(self, call: Call, hook: Hook) -> bool:
        """Whether the webhook changed the object."""
        verdict = await self._verdict(call, hook, mutating=True)
        if verdict is None or not verdict.patch:
            return False
        if call.new is None:
            why = "attempted to modify the object, which is not supported for this operation"
            raise InternalError(f'Internal error occurred: admission webhook "{hook.name}" {why}')
        changed = await self._known(call, partial(_apply, call, hook, verdict.patch))
        if same(changed, call.new):
            return False
        call.new = changed
        return True

    async def _validated(self, call: Call, hook: Hook) -> None:
        await self._verdict(call, hook, mutating=False)

    async def _verdict(self, call: Call, hook: Hook, *, mutating: bool) -> review.Verdict | None:
        """The answer; None where there is none and that does not matter. Raises what refuses the write."""
        if call.ctx.dry_run and hook.raw.get("sideEffects") not in _NO_SIDE_EFFECTS:
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        try:
            verdict = await self._call(call, hook, mutating)
        except CalloutFailed as error:
            if not hook.fails:
                kind = "mutation" if mutating else "validating"
                call.note(f"failed-open.{kind}.webhook.admission.k8s.io/{hook.name}", hook.name)
                return None
            said = f'failed calling webhook "{hook.name}": {error}'
            raise InternalError(f"Internal error occurred: {said}", causes=(Cause("", said),)) from None
        call.ctx.warnings += verdict.warnings
        for key, value in verdict.annotations.items():
            if len(key) <= NOTE_KEY_MAX:
                call.note(f"{hook.name}/{key}", value)
        if not verdict.allowed:
            raise review.denial(hook.name, verdict.status)
        return verdict

    async def _call(self, call: Call, hook: Hook, mutating: bool) -> review.Verdict:
        client = hook.raw.get("clientConfig") or {}
        known = hook.raw.get("admissionReviewVersions") or ("v1",)
        version = next((each for each in known if each in review.KNOWN), None)
        if version is None:
            raise CalloutFailed("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
        uid = self._api.ids.uid()
        body = await self._known(call, partial(review.asked, call, hook.version, version, uid, mutating))
        timeout_s = min(int(hook.raw.get("timeoutSeconds") or TIMEOUT_S_DEFAULT), TIMEOUT_S_MAX)
        try:
            answer = await self.reach.ask(call.ctx.cluster, client, body, timeout_s)
        except CalloutRefused as error:
            raise CalloutFailed(f"failed to call webhook: {error}") from None
        except CalloutFailed as error:
            where = shown_url(client, timeout_s)
            raise CalloutFailed(f'failed to call webhook: Post "{where}": {error}') from None
        return review.answered(answer, version, uid, mutating=mutating)


def _meets(hook: Hook, call: Call) -> bool:
    """Whether every matchCondition holds. Raises Forbidden where one fails and failures count."""
    given = hook.raw.get("matchConditions") or ()
    if not given:
        return True
    evaluator = expressions.Evaluator(call, hook.version, expressions.CONDITIONS_COST_MAX)
    failures = []
    for each in given:
        try:
            if evaluator.run(expressions.condition(each.get("expression", ""))) is False:
                return False
        except (cel.CelError, cel.SourceError) as error:
            failures.append(f"expression '{each.get('expression', '')}' resulted in error: {error}")
    if failures and hook.fails:
        why = failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]"
        raise forbidden(call.resource.key, call.name, why)
    return not failures


def _apply(call: Call, hook: Hook, patch: list[Any]) -> Object:
    """The object after a webhook's patch, in stored form, with what is the server's as it was."""
    assert call.new is not None
    current = expressions.shown(call, hook.version, call.new)
    assert current is not None
    try:
        patched = json_patch(copy(current), patch)
    except WalrasError as error:
        raise InternalError(f"Internal error occurred: {error.message}") from None
    if not isinstance(patched, dict):
        raise InternalError("Internal error occurred: the patch of a webhook left no object")
    if call.operation == "CONNECT" or call.subresource in ("eviction", "binding", "scale"):
        return patched
    return shaping.stored(call, hook.version, patched)
