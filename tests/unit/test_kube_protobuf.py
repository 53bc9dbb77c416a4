"""Bodies that a real kubectl 1.37 sent are read as the objects that it would have sent as JSON."""

from __future__ import annotations

import random
from base64 import b64encode
from typing import Any

import pytest

from walras.core.errors import BadRequest
from walras.kube.protobuf import DEPTH_MAX, MAGIC, _table, decode
from walras.kube.schema import Schema

# What kubectl sent, by command line.
# kubectl create ns team-a
NAMESPACE = (
    "6b3873000a0f0a02763112094e616d657370616365121e0a160a067465616d2d6112001a0022002a0032003800420012001a"
    "020a001a002200"
)
# kubectl create sa builder
SERVICE_ACCOUNT = (
    "6b3873000a140a027631120e536572766963654163636f756e7412190a170a076275696c64657212001a0022002a00320038"
    "0042001a002200"
)
# kubectl create secret generic s1 --from-literal=user=admin --from-literal=password='s3cr\xc3'
SECRET = (
    "6b3873000a0c0a0276311206536563726574123b0a120a02733112001a0022002a0032003800420012140a0870617373776f"
    "72641208733363725c786333120d0a0475736572120561646d696e1a001a002200"
)
# kubectl create job j1 --image=busybox -- sh -c "echo hi"
JOB = (
    "6b3873000a0f0a0862617463682f763112034a6f62128b010a120a026a3112001a0022002a00320038004200126b32690a10"
    "0a0012001a0022002a00320038004200125512320a026a31120762757379626f781a0273681a022d631a076563686f206869"
    "2a0042006a007200800100880100900100a201001a054e65766572320042004a0052005800600068008201008a01009a0100"
    "c201001a082000280030003a001a002200"
)
# kubectl create deployment d1 --image=nginx --replicas=3 --port=80
DEPLOYMENT = (
    "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b4010a1d0a02643112001a0022002a00320038004200"
    "5a090a03617070120264311284010803120b0a090a03617070120264311a6b0a1b0a0012001a0022002a003200380042005a"
    "090a0361707012026431124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a0072008001"
    "00880100900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c0800"
    "100018002000280038001a002200"
)
# kubectl create token builder --duration=10m --audience=a
TOKEN = (
    "6b3873000a280a1861757468656e7469636174696f6e2e6b38732e696f2f7631120c546f6b656e5265717565737412200a10"
    "0a0012001a0022002a0032003800420012060a016120d8041a040a0012001a002200"
)
# kubectl auth can-i create pods
CAN_I = (
    "6b3873000a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a656374416363657373"
    "526576696577123f0a100a0012001a0022002a0032003800420012210a1f0a0764656661756c7412066372656174651a0022"
    "002a04706f647332003a001a08080012001a0020001a002200"
)
# kubectl auth whoami
WHOAMI = (
    "6b3873000a2d0a1861757468656e7469636174696f6e2e6b38732e696f2f7631121153656c665375626a6563745265766965"
    "77121a0a100a0012001a0022002a0032003800420012060a040a0012001a002200"
)
# kubectl create priorityclass pc --value=-10 --preemption-policy=Never
PRIORITY_CLASS = (
    "6b3873000a250a147363686564756c696e672e6b38732e696f2f7631120d5072696f72697479436c617373122a0a120a0270"
    "6312001a0022002a0032003800420010f6ffffffffffffffff01180022002a054e657665721a002200"
)
# kubectl create service clusterip svc1 --tcp=80:8080
SERVICE = (
    "6b3873000a0d0a027631120753657276696365126c0a210a047376633112001a0022002a003200380042005a0b0a03617070"
    "12047376633112430a1b0a0738302d38303830120354435018502207080010903f1a002800120b0a03617070120473766331"
    "1a002209436c757374657249503a00420052005a00600068001a020a001a002200"
)


def read(text: str) -> dict[str, Any]:
    return decode(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            NAMESPACE,
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "team-a"},
                "spec": {},
                "status": {},
            },
        ),
        (SERVICE_ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}}),
        (
            SECRET,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s1"},
                "data": {
                    "user": b64encode(b"admin").decode(),
                    "password": b64encode(b"s3cr\\xc3").decode(),
                },
            },
        ),
        (
            JOB,
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": "j1"},
                "spec": {
                    "template": {
                        "metadata": {},
                        "spec": {
                            "containers": [
                                {
                                    "name": "j1",
                                    "image": "busybox",
                                    "command": ["sh", "-c", "echo hi"],
                                    "resources": {},
                                }
                            ],
                            "restartPolicy": "Never",
                        },
                    }
                },
                "status": {},
            },
        ),
        (
            DEPLOYMENT,
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "d1", "labels": {"app": "d1"}},
                "spec": {
                    "replicas": 3,
                    "selector": {"matchLabels": {"app": "d1"}},
                    "template": {
                        "metadata": {"labels": {"app": "d1"}},
                        "spec": {
                            "containers": [
                                {
                                    "name": "nginx",
                                    "image": "nginx",
                                    "ports": [{"containerPort": 80}],
                                    "resources": {},
                                }
                            ]
                        },
                    },
                    "strategy": {},
                },
                "status": {},
            },
        ),
        (
            TOKEN,
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "metadata": {},
                "spec": {"audiences": ["a"], "expirationSeconds": 600},
                "status": {"token": ""},
            },
        ),
        (
            CAN_I,
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "metadata": {},
                "spec": {
                    "resourceAttributes": {"namespace": "default", "verb": "create", "resource": "pods"}
                },
                "status": {"allowed": False},
            },
        ),
        (
            WHOAMI,
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "SelfSubjectReview",
                "metadata": {},
                "status": {"userInfo": {}},
            },
        ),
        (
            PRIORITY_CLASS,
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "pc"},
                "value": -10,
                "preemptionPolicy": "Never",
            },
        ),
        (
            SERVICE,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "svc1", "labels": {"app": "svc1"}},
                "spec": {
                    "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
                    "selector": {"app": "svc1"},
                    "type": "ClusterIP",
                },
                "status": {"loadBalancer": {}},
            },
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_what_kubectl_sends_is_read(body: str, expected: dict[str, Any]) -> None:
    assert read(body) == expected


def varint(number: int) -> bytes:
    out = b""
    number &= 2**64 - 1
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def part(number: int, value: bytes | str | int) -> bytes:
    """One field: bytes and strings with their length, integers as varints."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, message: bytes) -> bytes:
    return MAGIC + part(1, part(1, api_version) + part(2, kind)) + part(2, message)


def test_times_have_the_spelling_of_json() -> None:
    metadata = part(1, "e") + part(8, part(1, 1_700_000_000) + part(2, 0)) + part(9, b"")
    event = part(1, metadata) + part(10, part(1, 1_700_000_000) + part(2, 123_456_000))
    obj = decode(body("v1", "Event", event))
    assert obj["metadata"] == {"name": "e", "creationTimestamp": "2023-11-14T22:13:20Z"}
    assert obj["eventTime"] == "2023-11-14T22:13:20.123456Z"


def test_quantities_ports_and_inlined_structs_are_as_in_json() -> None:
    limits = part(1, part(1, "cpu") + part(2, part(1, "500m")))
    probe = part(1, part(2, part(1, "/ok") + part(2, part(1, 1) + part(3, "http")))) + part(2, 3)
    volume = part(1, "v") + part(2, part(2, b""))
    container = part(1, "c") + part(8, limits) + part(10, probe)
    obj = decode(body("v1", "Pod", part(2, part(1, volume) + part(2, container))))
    assert obj["spec"] == {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [
            {
                "name": "c",
                "resources": {"limits": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"path": "/ok", "port": "http"}, "initialDelaySeconds": 3},
            }
        ],
    }


def test_zero_is_kept_where_json_would_keep_it() -> None:
    # replicas is a pointer: 0 is said. minReadySeconds is not: 0 is the same as nothing.
    obj = decode(body("apps/v1", "Deployment", part(2, part(1, 0) + part(5, 0))))
    assert obj["spec"] == {"replicas": 0}


def test_a_crds_schema_with_its_unions_is_read() -> None:
    text = part(5, "string") + part(8, part(1, b'"x"'))
    schema = part(5, "object") + part(29, part(1, "a") + part(2, text)) + part(30, part(1, 1))
    listed = part(5, "array") + part(24, part(1, text)) + part(29, part(1, "s") + part(2, schema))
    version = part(1, "v1") + part(2, 1) + part(4, part(1, listed))
    obj = decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", part(2, part(7, version))))
    assert obj["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == {
        "type": "array",
        "items": {"type": "string", "default": "x"},
        "properties": {
            "s": {
                "type": "object",
                "properties": {"a": {"type": "string", "default": "x"}},
                "additionalProperties": True,
            }
        },
    }


def test_options_are_read_whatever_group_they_go_to() -> None:
    message = part(1, 0) + part(4, "Foreground")
    for group in ("v1", "apps/v1", "walras.dev/v1alpha1"):
        obj = decode(body(group, "DeleteOptions", message))
        assert obj == {
            "apiVersion": group, "kind": "DeleteOptions",
            "gracePeriodSeconds": 0, "propagationPolicy": "Foreground",
        }  # fmt: skip


def test_repeated_numbers_may_be_packed() -> None:
    security = part(4, varint(7) + varint(8))
    obj = decode(body("v1", "Pod", part(2, part(14, security + part(4, 9)))))
    assert obj["spec"]["securityContext"]["supplementalGroups"] == [7, 8, 9]


def test_fields_of_a_newer_client_are_passed_over() -> None:
    obj = decode(body("v1", "ConfigMap", part(1, part(1, "m")) + part(99, b"new") + part(98, 7)))
    assert obj == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "does not appear to be a protobuf message"),
        (b"", "does not appear to be a protobuf message"),
        (MAGIC, 'no kind "" is registered for version ""'),
        (body("v1", "Unicorn", b""), 'no kind "Unicorn" is registered for version "v1"'),
        (body("v1", "ConfigMap", part(1, b"\x0a")), "unexpected EOF"),
        (body("v1", "ConfigMap", b"\xff" * 12), "integer overflow"),
        (body("v1", "ConfigMap", b"\x0b"), "illegal wireType 3"),
        (body("v1", "ConfigMap", b"\x02\x00"), "illegal tag 0"),
        (body("v1", "ConfigMap", part(1, part(1, b"\xff"))), "a string is not UTF-8"),
        (body("v1", "ConfigMap", part(1, 7)), "wrong wireType 0"),
        (body("v1", "ConfigMap", part(1, part(8, part(1, 2**62)))), "a time is out of range"),
        (
            MAGIC + part(1, part(1, "v1") + part(2, "ConfigMap")) + part(3, "gzip"),
            "unsupported content encoding",
        ),
    ],
)
def test_damaged_bodies_are_bad_requests(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        decode(data)
    assert message in refused.value.message


def test_nesting_has_an_end() -> None:
    schema = part(5, "object")
    for _ in range(DEPTH_MAX + 1):
        schema = part(28, schema)
    with pytest.raises(BadRequest, match="nested too deeply"):
        decode(
            body(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                part(2, part(7, part(4, part(1, schema)))),
            )
        )


def test_any_bytes_are_read_or_refused_and_never_crash() -> None:
    random_bytes = random.Random(7)
    original = bytes.fromhex(DEPLOYMENT)
    for _ in range(3000):
        data = bytearray(original)
        for _ in range(random_bytes.randint(1, 6)):
            data[random_bytes.randrange(4, len(data))] = random_bytes.randrange(256)
        try:
            assert isinstance(decode(bytes(data)), dict)
        except BadRequest:
            continue


def test_the_table_has_the_fields_that_openapi_has() -> None:
    def names(message: str) -> set[str]:
        return {
            name
            for field in _table().messages[message].values()
            for name in ({field.name} if field.name else names(field.kind))
        }

    for message in (
        "core.v1.PodSpec",
        "core.v1.Container",
        "core.v1.Volume",
        "batch.v1.JobSpec",
        "core.v1.Probe",
    ):
        assert names(message) == set(Schema.named(f"io.k8s.api.{message}").properties)
