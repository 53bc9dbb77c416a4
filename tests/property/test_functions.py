"""Invariants of functions: how many instances there are, who gets which request, and where an answer ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from walras.core.errors import BadRequest, Invalid
from walras.functions.autoscaler import Meter, Seen, begin, decide
from walras.functions.connections import BadAnswer, Connection, parse_head
from walras.functions.hosts import Domain, Split, readings
from walras.functions.settings import INSTANCES_MAX, Scaling
from walras.functions.template import new_instance
from walras.functions.words import Where

Object = dict[str, Any]

MILLI = st.integers(0, 5_000_000)
scalings = st.builds(
    lambda low, more, **kwargs: Scaling(minimum=low, maximum=min(low + more, INSTANCES_MAX), **kwargs),
    st.integers(0, 20),
    st.integers(1, 80),
    activation=st.integers(1, 5),
    target_milli=st.integers(10, 200_000),
    window_ms=st.integers(1, 3600).map(lambda s: s * 1000),
    down_delay_ms=st.integers(0, 60).map(lambda s: s * 1000),
    retention_ms=st.integers(0, 60).map(lambda s: s * 1000),
)
loads = st.lists(st.tuples(MILLI, MILLI, st.integers(0, 3000)), min_size=1, max_size=30)


@given(scalings, loads, st.booleans())
def test_there_are_never_more_instances_than_allowed_nor_fewer(
    scaling: Scaling, load: list[tuple[int, int, int]], reachable: bool
) -> None:
    mind, now_ms, ready = begin(0, 0), 0, 0
    for stable, panic, later_ms in load:
        now_ms += later_ms
        mind, wanted = decide(mind, scaling, Seen(stable, panic, ready, now_ms, reachable))
        assert wanted <= scaling.maximum
        assert wanted >= (scaling.minimum if reachable else 0)
        if stable:
            assert wanted >= 1
        ready = wanted


@given(scalings, MILLI, st.integers(1, 100))
def test_a_steady_load_gets_as_many_instances_as_bear_it_and_keeps_them(
    scaling: Scaling, load: int, ready: int
) -> None:
    scaling = replace(scaling, activation=1)
    needed = -(-load // scaling.target_milli)
    bounded = min(max(needed, scaling.minimum), scaling.maximum)
    mind, now_ms = begin(ready, 0), 0
    # A panic ends a window after it began, each of seven halvings waits for the delay, the last instance for
    # its time.
    settled_ms = 3 * (scaling.window_ms + scaling.retention_ms) + 9 * scaling.down_delay_ms + 20_000
    step_ms = settled_ms // 40 + 1
    for _ in range(60):
        now_ms += step_ms
        mind, ready = decide(mind, scaling, Seen(load, load, ready, now_ms))
    assert ready == bounded


@given(scalings, MILLI, st.integers(0, 100), st.integers(1, 1_000_000))
def test_more_load_never_means_fewer_instances(scaling: Scaling, load: int, ready: int, more: int) -> None:
    mind = begin(ready, 0)
    at_ms = scaling.window_ms
    _, less = decide(mind, scaling, Seen(load, load, ready, at_ms))
    _, most = decide(mind, scaling, Seen(load + more, load + more, ready, at_ms))
    assert most >= less


@given(scalings, st.integers(1, 100), st.integers(2, 100))
def test_in_a_panic_there_are_only_ever_more(scaling: Scaling, ready: int, times: int) -> None:
    scaling = replace(scaling, minimum=0, maximum=INSTANCES_MAX)
    surge = ready * scaling.target_milli * times
    mind, up = decide(begin(0, 0), scaling, Seen(0, surge, ready, 1000))
    assert up >= min(ready * 2, INSTANCES_MAX)
    _, then = decide(mind, scaling, Seen(0, 0, ready, 1000 + scaling.window_ms))
    assert then == up


@given(scalings, st.integers(0, 3_600_000))
def test_the_last_instance_stays_for_its_window_and_retention_and_no_longer(
    scaling: Scaling, later_ms: int
) -> None:
    scaling = replace(scaling, minimum=0, down_delay_ms=0)
    mind, kept = decide(begin(1, 0), scaling, Seen(0, 0, 1, 0))
    assert kept == 1
    mind, kept = decide(mind, scaling, Seen(0, 0, 1, scaling.window_ms))
    assert kept == (0 if scaling.retention_ms == 0 else 1)
    _, kept = decide(mind, scaling, Seen(0, 0, 1, scaling.window_ms + later_ms))
    assert kept == (0 if later_ms >= scaling.retention_ms else 1)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(-3, 5)), max_size=40), st.integers(1, 30))
def test_a_meter_measures_what_a_sum_over_every_millisecond_does(
    changes: list[tuple[int, int]], window_s: int
) -> None:
    window_ms, first_ms = window_s * 1000, 12_345
    meter, now_ms, level, history = Meter(first_ms, window_ms), first_ms, 0, []
    for later_ms, by in changes:
        history.append((now_ms, now_ms + later_ms, level))
        now_ms += later_ms
        for _ in range(abs(by)):
            step = 1 if by > 0 else -1
            if level + step >= 0:
                level += step
                meter.change(now_ms, step)
    since_ms = max(first_ms, now_ms - window_ms - (now_ms - window_ms) % 1000)
    area = sum(max(0, end - max(begin_ms, since_ms)) * at for begin_ms, end, at in history)
    assert meter.level == level
    assert meter.concurrency_milli(now_ms, window_ms) == -(-area * 1000 // max(1, now_ms - since_ms))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_any_hundred_requests_in_a_row_are_split_as_the_percents_say(weights: list[int]) -> None:
    shares = [weight * 100 // sum(weights) for weight in weights]
    shares[0] += 100 - sum(shares)
    split = Split([{"revisionName": str(at), "percent": share} for at, share in enumerate(shares)])
    order = [split.next() for _ in range(300)]
    wanted = {str(at): share for at, share in enumerate(shares) if share}
    for start in range(200):
        assert Counter(order[start : start + 100]) == wanted


LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@given(LABEL, LABEL, LABEL, st.sampled_from([80, 7444]))
def test_a_function_is_found_by_the_host_of_its_own_url_and_by_no_part_of_it(
    name: str, namespace: str, cluster: str, port: int
) -> None:
    domain = Domain("functions.localhost", port)
    where = Where(cluster, namespace, name)
    host = domain.url(where).removeprefix("http://").encode()
    assert domain.parse(host) == where
    assert domain.parse(host.upper()) == where
    assert domain.parse(b"x." + host) is None
    assert domain.parse(host.split(b":")[0] + b".example") is None
    assert domain.parse(host.split(b".", 1)[1]) is None


@given(st.text(max_size=80))
def test_whatever_a_host_header_is_it_is_a_function_or_none(host: str) -> None:
    found = Domain("functions.localhost", 80).parse(host.encode("utf-8", "surrogatepass"))
    assert found is None or all(found)


@given(LABEL, LABEL)
def test_a_tag_and_a_name_are_among_the_readings_of_their_host(tag: str, name: str) -> None:
    found = list(readings(f"{tag}-{name}"))
    assert found[0] == ("", f"{tag}-{name}")
    assert (tag, name) in found


def read_back(raw: bytes, method: str = "GET") -> tuple[int, bytes]:
    async def read() -> tuple[int, bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(raw)
        reader.feed_eof()
        connection = Connection(reader, NoWriter())  # type: ignore[arg-type]
        head = await connection.head(method)
        return head.status, b"".join([piece async for piece in connection.body(head)])

    return asyncio.run(read())


class NoWriter:
    def get_extra_info(self, name: str) -> None:
        return None


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.binary(max_size=20))
def test_a_chunked_body_is_what_was_sent_and_ends_where_it_says(pieces: list[bytes], rest: bytes) -> None:
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nx: y\r\n\r\n" + rest
    assert read_back(raw) == (200, b"".join(pieces))


@given(st.binary(max_size=300))
def test_whatever_an_instance_says_it_is_an_answer_or_refused(raw: bytes) -> None:
    for text in (raw, b"HTTP/1.1 200 OK\r\n" + raw):
        try:
            head = parse_head(text, "GET")
        except BadAnswer:
            continue
        assert 100 <= head.status <= 999


@given(st.binary(max_size=200))
def test_a_body_in_chunks_that_is_none_is_refused_and_never_longer_than_it_was_sent(raw: bytes) -> None:
    try:
        _, body = read_back(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + raw)
    except (BadAnswer, EOFError):
        return
    assert len(body) < len(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PROBE = st.dictionaries(st.sampled_from(["httpGet", "tcpSocket", "grpc", "exec", "periodSeconds"]), JSON)
LEFT_OPEN = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("volumes", "nodeSelector", "affinity", "tolerations", "any"), JSON)
)
CONTAINER = st.fixed_dictionaries(
    {"image": st.text(max_size=5)},
    optional={
        "readinessProbe": PROBE,
        "livenessProbe": PROBE,
        "resources": st.dictionaries(st.sampled_from(["limits", "requests", "claims"]), JSON),
        "volumeMounts": JSON,
        "securityContext": JSON,
        "name": st.text(max_size=8),
    },
)


@given(LEFT_OPEN, CONTAINER)
def test_whatever_a_template_says_it_is_a_pod_or_refused(spec: Object, container: Object) -> None:
    revision = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": "r", "namespace": "default", "uid": "u"},
        "spec": {**spec, "containers": [container]},
    }
    try:
        pod = new_instance(revision)
    except (BadRequest, Invalid):
        return
    assert pod["metadata"]["generateName"] == "r-"
    assert {"name": "PORT", "value": "8080"} in pod["spec"]["containers"][0]["env"]
