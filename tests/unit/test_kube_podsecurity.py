"""Pod Security admission. Outcomes and words are those of the real server, which was asked."""

from __future__ import annotations

from typing import Any

import pytest
from support.caller import Caller, Object, run

from walras.core.errors import Forbidden, Invalid
from walras.kube.admission.podprofiles import NEWEST, violations

PREFIX = "pod-security.kubernetes.io/"
GOOD: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str = "p", spec: Object | None = None, **security: Any) -> Object:
    containers = [{"name": "c", "image": "i", "securityContext": security}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **(spec or {})}}


async def label(caller: Caller, **labels: str | None) -> None:
    changed = {PREFIX + mode.replace("_", "-"): value for mode, value in labels.items()}
    await caller.patch("namespaces", "default", {"metadata": {"labels": changed}})


def test_a_namespace_holds_its_pods_to_a_profile() -> None:
    async def story(caller: Caller) -> None:
        await caller.create("pods", pod("free", privileged=True))
        await label(caller, enforce="restricted")
        with pytest.raises(Forbidden) as refusal:
            await caller.create("pods", pod("p", {"hostNetwork": True}))
        assert refusal.value.message == (
            'pods "p" is forbidden: violates PodSecurity "restricted:latest": host namespaces '
            '(hostNetwork=true), allowPrivilegeEscalation != false (container "c" must set '
            'securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must '
            'set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container '
            '"c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set '
            'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        )
        await caller.create("pods", pod("good", **GOOD))
        # What was there before goes on, and may be labelled.
        await caller.patch("pods", "free", {"metadata": {"labels": {"a": "b"}}})
        await label(caller, enforce="baseline")
        await caller.create("pods", pod("bare"))
        with pytest.raises(Forbidden, match=r"must not set securityContext.privileged=true"):
            await caller.create("pods", pod("q", privileged=True))

    run(story)


def test_workloads_are_warned_about_and_their_pods_refused() -> None:
    async def story(caller: Caller) -> None:
        await label(caller, enforce="baseline")
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod(privileged=True)["spec"]}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        await caller.create("deployments.apps", {"metadata": {"name": "d"}, "spec": spec})
        expected = 'would violate PodSecurity "baseline:latest": privileged (container "c" must not set'
        assert [text.startswith(expected) for text in caller.warnings] == [True]

    run(story)


def test_a_warned_of_profile_refuses_nothing() -> None:
    async def story(caller: Caller) -> None:
        await label(caller, warn="restricted", warn_version="v1.19")
        await caller.create("pods", pod("p", runAsUser=0))
        assert caller.warnings == [
            'would violate PodSecurity "restricted:v1.19": allowPrivilegeEscalation != false (container "c" '
            "must set securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true (pod or "
            'container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" '
            'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        ]

    run(story)


def test_a_stricter_namespace_tells_which_pods_it_would_refuse_now() -> None:
    async def story(caller: Caller) -> None:
        for name in ("b", "a", "c"):
            await caller.create("pods", pod(name, privileged=True))
        await caller.create("pods", pod("d", {"hostPID": True}))
        await label(caller, enforce="baseline")
        assert caller.warnings == [
            'existing pods in namespace "default" violate the new PodSecurity enforce level '
            '"baseline:latest"',
            "a (and 2 other pods): privileged",
            "d: host namespaces",
        ]
        caller.warnings.clear()
        await label(caller, enforce="privileged")
        assert not caller.warnings

    run(story)


def test_labels_that_say_nothing_are_refused() -> None:
    async def story(caller: Caller) -> None:
        with pytest.raises(Invalid) as refusal:
            await label(caller, enforce="restrited", warn_version="1.2")
        assert [(cause.field, cause.message) for cause in refusal.value.causes] == [
            (
                f"metadata.labels[{PREFIX}enforce]",
                'Invalid value: "restrited": must be one of privileged, baseline, restricted',
            ),
            (f"metadata.labels[{PREFIX}warn-version]", 'Invalid value: "1.2": must be "latest" or "v1.x"'),
        ]

    run(story)


@pytest.mark.parametrize(
    ("level", "minor", "asked", "reasons"),
    [
        ("privileged", NEWEST, pod(privileged=True), []),
        ("baseline", NEWEST, pod(), []),
        ("baseline", NEWEST, pod(capabilities={"add": ["NET_RAW"]}), ["non-default capabilities"]),
        ("baseline", NEWEST, pod(procMount="Unmasked"), ["procMount"]),
        ("baseline", NEWEST, pod("p", {"hostUsers": False}, procMount="Unmasked"), []),
        ("restricted", NEWEST, pod("p", {"hostUsers": False}, procMount="Unmasked", **GOOD), ["procMount"]),
        ("restricted", NEWEST, pod(**GOOD), []),
        ("restricted", 99, pod(**GOOD), []),
        ("restricted", NEWEST, pod(**{**GOOD, "runAsUser": 0}), ["runAsUser=0"]),
        ("restricted", 22, pod(**{**GOOD, "runAsUser": 0}), []),
        (
            "restricted",
            NEWEST,
            pod("p", {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": True}}),
            [],
        ),
        (
            "restricted",
            NEWEST,
            pod("p", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, **GOOD),
            ["restricted volume types"],
        ),
        (
            "baseline",
            NEWEST,
            pod("p", {"securityContext": {"seLinuxOptions": {"type": "x"}}}),
            ["seLinuxOptions"],
        ),
        (
            "baseline",
            30,
            pod("p", {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}),
            ["seLinuxOptions"],
        ),
        (
            "baseline",
            31,
            pod("p", {"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}),
            [],
        ),
    ],
)
def test_profiles_by_version(level: str, minor: int, asked: Object, reasons: list[str]) -> None:
    assert [bad.reason for bad in violations(level, minor, asked)] == reasons  # type: ignore[arg-type]


def test_the_audit_log_says_what_a_stricter_profile_would_forbid() -> None:
    async def story(caller: Caller) -> None:
        await label(caller, audit="baseline")
        context = caller.context()
        await caller.verbs.create(context, caller.resource("pods"), "default", pod(privileged=True))
        assert context.annotations == {
            f"{PREFIX}enforce-policy": "privileged:latest",
            f"{PREFIX}audit-violations": 'would violate PodSecurity "baseline:latest": privileged '
            '(container "c" must not set securityContext.privileged=true)',
        }

    run(story)
