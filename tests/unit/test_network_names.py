"""Names in an agent's cluster, asked for as a resolver asks, and what their answers decode to."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.kube import standing
from walras.runtimes.network.forwards import forwards
from walras.runtimes.network.names import Names
from walras.runtimes.network.networks import API_ADDRESS
from walras.runtimes.network.nftables import rules

Object = dict[str, Any]
A, CNAME, PTR, AAAA, SRV = 1, 5, 12, 28, 33


def service(name: str, address: str, **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": address, "ports": ports, **spec},
    }


def piece(name: str, *addresses: str, hosts: tuple[str, ...] = (), ready: bool = True) -> Object:
    endpoints = [{"addresses": [each], "conditions": {"ready": ready, "serving": True}} for each in addresses]
    for endpoint, host in zip(endpoints, hosts, strict=False):
        endpoint["hostname"] = host
    return {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


SERVICES = {
    "web": service("web", "10.0.3.4"),
    "db": service("db", "None"),
    "out": service("out", "", type="ExternalName", externalName="db.example.org"),
    "alias": service("alias", "", type="ExternalName", externalName="web.shop.svc.cluster.local"),
    "loop": service("loop", "", type="ExternalName", externalName="loop.shop.svc.cluster.local."),
}
SLICES = {
    "web": [piece("web", "10.244.0.2", "10.244.0.3")],
    "db": [piece("db", "10.244.0.8", "10.244.0.9", hosts=("db-0", "db-1"))],
}
NAMES = Names(
    lambda namespace, name: SERVICES.get(name) if namespace == "shop" else None,
    lambda namespace, name: SLICES.get(name, []) if namespace == "shop" else [],
    "10.0.0.1",
    SERVICES.values,
)


def query(name: str, kind: int, *, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes((len(each),)) + each.encode() for each in name.split("."))
    return struct.pack(">HHHHHH", 77, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def decoded(data: bytes) -> tuple[int, list[str]]:
    """The code of an answer, and its records in words."""
    number, flags, questions, answers, _, beside = struct.unpack_from(">HHHHHH", data)
    assert (number, questions, flags >> 15) == (77, 1, 1)
    _, at = _name(data, 12)
    at += 4
    found = []
    for _ in range(answers + beside):
        name, at = _name(data, at)
        kind, _, _, size = struct.unpack_from(">HHIH", data, at)
        at += 10
        if kind == A:
            found.append(f"{name} {ipaddress.ip_address(data[at : at + size])}")
        elif kind == CNAME:
            found.append(f"is {_name(data, at)[0]}")
        elif kind == PTR:
            found.append(f"called {_name(data, at)[0]}")
        elif kind == SRV:
            found.append(f"{struct.unpack_from('>H', data, at + 4)[0]} of {_name(data, at + 6)[0]}")
        at += size
    assert at == len(data)
    return flags & 15, found


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    while data[at]:
        if data[at] >= 0xC0:
            rest, _ = _name(data, struct.unpack_from(">H", data, at)[0] & 0x3FFF)
            return ".".join([*labels, rest]), at + 2
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels), at + 1


def asked(name: str, kind: int = A) -> tuple[int, list[str]]:
    return decoded(NAMES.answer(query(name, kind), bytes_max=512))


CLUSTER = "svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("4.3.0.10.in-addr.arpa", PTR, (0, ["called web.shop.svc.cluster.local"])),
        ("1.0.0.10.IN-ADDR.arpa", PTR, (0, ["called kubernetes.default.svc.cluster.local"])),
        ("4.3.0.10.in-addr.arpa", A, (0, [])),
        ("5.3.0.10.in-addr.arpa", PTR, (3, [])),
        ("None.in-addr.arpa", PTR, (3, [])),
        ("in-addr.arpa", PTR, (3, [])),
    ],
)
def test_an_address_of_a_service_has_its_name(name: str, kind: int, expected: tuple[int, list[str]]) -> None:
    assert asked(name, kind) == expected


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (f"web.shop.{CLUSTER}", A, [f"web.shop.{CLUSTER} 10.0.3.4"]),
        (f"WEB.shop.{CLUSTER}", A, [f"WEB.shop.{CLUSTER} 10.0.3.4"]),
        (f"web.shop.{CLUSTER}", AAAA, []),
        (f"db.shop.{CLUSTER}", A, [f"db.shop.{CLUSTER} 10.244.0.8", f"db.shop.{CLUSTER} 10.244.0.9"]),
        (f"db-1.db.shop.{CLUSTER}", A, [f"db-1.db.shop.{CLUSTER} 10.244.0.9"]),
        (f"out.shop.{CLUSTER}", A, ["is db.example.org"]),
        (f"alias.shop.{CLUSTER}", A, [f"is web.shop.{CLUSTER}", f"web.shop.{CLUSTER} 10.0.3.4"]),
        (f"alias.shop.{CLUSTER}", AAAA, [f"is web.shop.{CLUSTER}"]),
        (f"loop.shop.{CLUSTER}", A, [f"is loop.shop.{CLUSTER}"]),
        (f"kubernetes.default.{CLUSTER}", A, [f"kubernetes.default.{CLUSTER} 10.0.0.1"]),
        ("10-244-0-7.shop.pod.cluster.local", A, ["10-244-0-7.shop.pod.cluster.local 10.244.0.7"]),
        (
            f"_http._tcp.web.shop.{CLUSTER}",
            SRV,
            [f"80 of web.shop.{CLUSTER}", f"web.shop.{CLUSTER} 10.0.3.4"],
        ),
        (
            f"_http._tcp.db.shop.{CLUSTER}",
            SRV,
            [
                f"8080 of db-0.db.shop.{CLUSTER}", f"8080 of db-1.db.shop.{CLUSTER}",
                f"db-0.db.shop.{CLUSTER} 10.244.0.8", f"db-1.db.shop.{CLUSTER} 10.244.0.9",
            ],
        ),
    ],
)  # fmt: skip
def test_names_of_a_cluster_lead_where_kubernetes_says(name: str, kind: int, expected: list[str]) -> None:
    assert asked(name, kind) == (0, expected)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (f"web.other.{CLUSTER}", 3), (f"none.shop.{CLUSTER}", 3), (f"db-7.db.shop.{CLUSTER}", 3),
        (f"_http._udp.web.shop.{CLUSTER}", 3), ("300-1-1-1.shop.pod.cluster.local", 3),
        (f"a.b.c.d.e.{CLUSTER}", 3), (CLUSTER, 0), (f"shop.{CLUSTER}", 0), ("example.org", 5), ("local", 5),
    ],
)  # fmt: skip
def test_what_is_not_there_and_what_is_of_others_is_told_apart(name: str, code: int) -> None:
    assert asked(name) == (code, [])


def test_an_answer_that_does_not_fit_is_asked_for_over_tcp() -> None:
    many = [piece("db", *(f"10.244.1.{number}" for number in range(200)))]
    names = Names(lambda _, name: SERVICES.get(name), lambda _, __: many, "10.0.0.1")
    short = names.answer(query(f"db.shop.{CLUSTER}", A), bytes_max=512)
    assert len(short) <= 512 and short[2] & 0x02 and decoded(short) == (0, [])
    assert len(decoded(names.answer(query(f"db.shop.{CLUSTER}", A), bytes_max=65_535))[1]) == 200


@given(st.binary(max_size=300))
def test_no_bytes_are_too_strange(data: bytes) -> None:
    said = NAMES.answer(data, bytes_max=512)
    # Two name servers that answered each other's answers would never stop.
    assert len(said) <= 512 and not (len(data) > 2 and data[2] & 0x80 and said)


@given(st.binary(max_size=60), st.integers(0, 255))
def test_a_question_that_is_cut_or_changed_is_answered_or_refused(extra: bytes, at: int) -> None:
    good = bytearray(query(f"web.shop.{CLUSTER}", A))
    good[at % len(good)] ^= 0x41
    for data in (bytes(good), bytes(good[: at % len(good)]), bytes(good) + extra):
        assert len(NAMES.answer(data, bytes_max=512)) <= 512


def test_services_forward_to_what_is_ready_or_else_to_what_still_serves() -> None:
    (web,) = forwards([SERVICES["web"], SERVICES["db"], SERVICES["out"]], SLICES["web"] + SLICES["db"])
    assert (str(web.address), web.port, web.protocol) == ("10.0.3.4", 80, "TCP")
    assert [(str(address), port) for address, port in web.targets] == [
        ("10.244.0.2", 8080), ("10.244.0.3", 8080),
    ]  # fmt: skip
    ending = [piece("web", "10.244.0.4", ready=False)]
    assert [str(a) for a, _ in forwards([SERVICES["web"]], ending)[0].targets] == ["10.244.0.4"]
    both = [*ending, *SLICES["web"]]
    assert "10.244.0.4" not in [str(a) for a, _ in forwards([SERVICES["web"]], both)[0].targets]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "x", "999.1.1.1"])
def test_nobodys_loopback_and_no_nonsense_is_behind_a_service(address: str) -> None:
    (web,) = forwards([SERVICES["web"]], [piece("web", address)])
    assert web.targets == ()


@pytest.mark.parametrize("port", [-1, 0, 65_536, None])
def test_a_port_that_none_can_be_is_behind_no_service_and_no_name(port: int | None) -> None:
    odd = {**piece("db", "10.244.0.2"), "ports": [{"name": "http", "protocol": "TCP", "port": port}]}
    (web,) = forwards([SERVICES["web"]], [{**odd, "metadata": piece("web")["metadata"]}])
    assert web.targets == () and rules([web])
    names = Names(lambda _, name: SERVICES.get(name), lambda _, __: [odd], "10.0.0.1")
    assert decoded(names.answer(query(f"db.shop.{CLUSTER}", SRV), bytes_max=512)) == (0, [])


@given(st.lists(st.sampled_from(sorted(SERVICES)), max_size=4), st.integers(0, 1200))
def test_rules_are_whole_netlink_messages(names: list[str], many: int) -> None:
    addresses = [str(ipaddress.ip_address("10.244.0.2") + number) for number in range(many)]
    found = forwards([SERVICES[name] for name in names], [piece("web", *addresses)])
    data, at = rules(found), 0
    kinds: list[int] = []
    while at < len(data):
        size, kind, _, number, _ = struct.unpack_from("=IHHII", data, at)
        assert size >= 20 and size % 4 == 0 and number == len(kinds) + 1
        kinds.append(kind)
        at += size
    assert at == len(data) and (kinds[0], kinds[-1]) == (0x10, 0x11)


def test_the_way_to_the_api_is_no_service_like_others() -> None:
    table = standing.records("2026-01-02T03:04:05Z", server=("10.1.2.3", 443))
    (found,), (behind,) = (table[each].values() for each in ("services", "endpointslices.discovery.k8s.io"))
    assert found.object["spec"]["clusterIP"] == str(API_ADDRESS)
    assert forwards([found.object], [behind.object]) == []
