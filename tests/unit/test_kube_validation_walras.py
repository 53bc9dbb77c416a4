"""Validation of Walras' types, and of what it asks of Kubernetes' own: GPUs, bids in annotations."""

import pytest
from support.validation import ALL, CONTAINER, Object, container, faults, pod, ready

from walras.kube import validation


@pytest.mark.parametrize(
    ("most", "complaint"),
    [
        ({"walras.dev/milligpu": "1500"}, "1500 is more than one device but no whole number of devices"),
        ({"walras.dev/milligpu": "100", "nvidia.com/gpu": "1"}, "not both"),
        ({"walras.dev/gpu-memory-mib": "100"}, "walras.dev/gpu-memory-mib needs walras.dev/milligpu"),
        ({"nvidia.com/gpu": "2000"}, "2k devices are more than"),
    ],
)
def test_a_gpu_request_that_no_lease_can_have_is_refused(most: Object, complaint: str) -> None:
    complaint = complaint.replace("2k", "2000")
    (found,) = faults("pods", container(resources={"limits": most}))
    assert found.startswith("spec.containers: Invalid value: {") and complaint in found


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        ("walras.dev/class", "urgent", "FieldValueNotSupported"),
        ("walras.dev/max-price", "-1", "FieldValueInvalid"),
        ("walras.dev/max-price", "much", "FieldValueInvalid"),
        ("walras.dev/restart-cost", "1.2345678", "FieldValueInvalid"),
        ("walras.dev/term", "soon", "FieldValueInvalid"),
        ("walras.dev/term", "0s", "FieldValueInvalid"),
        ("walras.dev/deadline", "2030-01-31", "FieldValueInvalid"),
        ("walras.dev/decay-from", "soon", "FieldValueInvalid"),
        ("walras.dev/topology", "rack", "FieldValueNotSupported"),
        ("walras.dev/slo", "fast", "FieldValueInvalid"),
        ("walras.dev/slo", "0s", "FieldValueInvalid"),
        ("walras.dev/slo", "25h", "FieldValueInvalid"),
        ("walras.dev/slo-bad", "1s", "FieldValueInvalid"),
    ],
)
def test_the_terms_of_a_bid_in_annotations_are_checked(annotation: str, value: str, reason: str) -> None:
    causes = validation.validate(ALL["pods"], ready("pods", pod({"annotations": {annotation: value}})), None)
    assert [(cause.reason, cause.field) for cause in causes] == [
        (reason, f"metadata.annotations[{annotation}]")
    ]
    spec = {"containers": [CONTAINER], "restartPolicy": "Never"}
    template = {"metadata": {"annotations": {annotation: value}}, "spec": spec}
    (cause,) = validation.validate(
        ALL["jobs.batch"], ready("jobs.batch", {"spec": {"template": template}}), None
    )
    assert cause.field == f"spec.template.metadata.annotations[{annotation}]"


def test_sound_terms_of_a_bid_are_taken() -> None:
    terms = {
        "walras.dev/class": "latency", "walras.dev/max-price": "2.50", "walras.dev/restart-cost": "0.1",
        "walras.dev/term": "10m", "walras.dev/deadline": "2030-01-31T12:00:00Z",
        "walras.dev/decay-from": "2030-01-31T11:59:59Z", "walras.dev/topology": "nvlink",
        "walras.dev/slo": "200ms", "walras.dev/slo-bad": "1s",
    }  # fmt: skip
    assert faults("pods", pod({"annotations": terms})) == []
    terms["walras.dev/decay-from"] = terms["walras.dev/deadline"]
    assert faults("pods", pod({"annotations": terms})) == [
        'metadata.annotations[walras.dev/decay-from]: Invalid value: "2030-01-31T12:00:00Z": '
        "must be before the deadline"
    ]


def test_an_objective_has_its_bad_end_beyond_the_good_one() -> None:
    for good, bad in (("1s", "1s"), ("1s", "999ms")):
        terms = {"walras.dev/slo": good, "walras.dev/slo-bad": bad}
        (found,) = faults("pods", pod({"annotations": terms}))
        assert found.startswith("metadata.annotations[walras.dev/slo-bad]") and "longer" in found


@pytest.mark.parametrize("kind", ["jobs.batch", "deployments.apps", "replicasets.apps"])
def test_what_is_measured_of_a_workload_is_checked(kind: str) -> None:
    field = "metadata.annotations[walras.dev/latency]"

    def found(said: str) -> list[str]:
        obj = ready(kind, {"spec": {"template": {"spec": {"containers": [CONTAINER]}}}})
        obj["metadata"]["annotations"] = {"walras.dev/latency": said}
        return [cause.field for cause in validation.validate(ALL[kind], obj, None)]

    assert field not in found("450ms")
    for said in ("slow", "-1s", "0s", "25h"):
        assert field in found(said)


@pytest.mark.parametrize("name", ["fleet", "*", "A", "a.b", "-a", "a" * 64])
def test_names_that_no_agent_may_have(name: str) -> None:
    agent = {"metadata": {"name": name}, "spec": {"budget": {"income": "12/h"}}}
    assert {fault.partition(":")[0] for fault in faults("agents.walras.dev", agent)} == {"metadata.name"}


@pytest.mark.parametrize(
    ("key", "spec", "field"),
    [
        ("agents.walras.dev", {}, "spec.budget"),
        ("agents.walras.dev", {"budget": {}}, "spec.budget.income"),
        ("agents.walras.dev", {"budget": {"income": "12"}}, "spec.budget.income"),
        ("agents.walras.dev", {"budget": {"income": 12}}, "spec.budget.income"),
        ("agents.walras.dev", {"budget": {"income": "1/h", "balance": "-3"}}, "spec.budget.balance"),
        ("agents.walras.dev", {"budget": {"income": "1/h", "weight": 0}}, "spec.budget.weight"),
        ("pools.walras.dev", {"reservePrice": "free"}, "spec.reservePrice"),
        ("pools.walras.dev", {"tick": "0s"}, "spec.tick"),
        ("pools.walras.dev", {"tick": "1ms"}, "spec.tick"),
        ("pools.walras.dev", {"tick": "365d"}, "spec.tick"),
        ("pools.walras.dev", {"minimumQuantum": "365d"}, "spec.minimumQuantum"),
        ("pools.walras.dev", {"notice": "365d"}, "spec.notice"),
        ("pools.walras.dev", {"mechanism": "lottery"}, "spec.mechanism"),
        ("bids.walras.dev", {"class": "urgent", "packages": [{"maxPrice": "1"}]}, "spec.class"),
        ("bids.walras.dev", {"class": "batch", "packages": []}, "spec.packages"),
        ("bids.walras.dev", {"class": "batch", "packages": [{}]}, "spec.packages[0].maxPrice"),
        (
            "bids.walras.dev",
            {"class": "batch", "packages": [{"maxPrice": "1", "memory": "-1Gi"}]},
            "spec.packages[0].memory",
        ),
        (
            "bids.walras.dev",
            {"class": "batch", "packages": [{"maxPrice": "1", "devices": 0}]},
            "spec.packages[0].devices",
        ),
        *(
            ("bids.walras.dev", {"class": "batch", "packages": [{"maxPrice": "1", **package}]}, field)
            for package, field in (
                ({"devices": 4, "devicesMin": 5}, "spec.packages[0].devicesMin"),
                ({"devicesMin": 2}, "spec.packages[0].devicesMin"),
                ({"topology": "rack"}, "spec.packages[0].topology"),
                ({"migProfile": "big"}, "spec.packages[0].migProfile"),
                ({"migProfile": "1g.10gb", "milliGPU": 1000}, "spec.packages[0].milliGPU"),
                ({"migProfile": "1g.10gb", "memory": "1Gi"}, "spec.packages[0].memory"),
            )
        ),
        *(
            ("bids.walras.dev", {"class": "batch", "packages": [{"maxPrice": "1"}], **times}, field)
            for times, field in (
                ({"decayFrom": "2030-01-31T12:00:00Z"}, "spec.deadline"),
                ({"decayFrom": "2030-01-31T12:00:00Z", "deadline": "2030-01-31T12:00:00Z"}, "spec.decayFrom"),
                ({"decayFrom": "soon", "deadline": "2030-01-31T12:00:00Z"}, "spec.decayFrom"),
            )
        ),
        ("pools.walras.dev", {"payments": "first"}, "spec.payments"),
        ("pools.walras.dev", {"reservePriceMax": "much"}, "spec.reservePriceMax"),
        ("pools.walras.dev", {"reservePrice": "1", "reservePriceMax": "0.99"}, "spec.reservePriceMax"),
        ("pools.walras.dev", {"speeds": {"H100": 0}}, "spec.speeds.H100"),
        ("pools.walras.dev", {"speeds": {"H100": "fast"}}, "spec.speeds.H100"),
        ("pools.walras.dev", {"speeds": {"x" * 65: 1000}}, "spec.speeds"),
    ],
)
def test_walras_kinds(key: str, spec: Object, field: str) -> None:
    assert {fault.partition(":")[0] for fault in faults(key, {"spec": spec})} == {field}


def test_a_pool_that_nobody_would_clear_is_refused() -> None:
    second = {"metadata": {"name": "second"}, "spec": {}}
    assert faults("pools.walras.dev", second) == [
        'metadata.name: Invalid value: "second": there is one pool, "default": change its spec instead'
    ]


def test_a_negative_balance_is_told_in_plain_words() -> None:
    agent = {"spec": {"budget": {"income": "12/h", "balance": "-3"}}}
    assert faults("agents.walras.dev", agent) == [
        'spec.budget.balance: Invalid value: "-3": "-3" is negative; an amount '
        "of credits must be zero or more"
    ]
