"""Allocation of devices finds a solution exactly when there is one, and what it finds keeps every rule."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.devices import DRIVER, claim, device, device_class, device_slice, exactly

from walras.tenants.claims import asks
from walras.tenants.claims.effort import Effort
from walras.tenants.claims.pools import DeviceId, Pools
from walras.tenants.claims.search import Pick, Search, Taken
from walras.tenants.fit import Node

Object = dict[str, Any]
Choice = tuple[tuple[str, tuple[str, ...]], ...]
"""For each request the alternative and its devices."""

NODE = Node("n", {}, (), {}, ())
CLASS = device_class("gpu")
COLOURS = ("red", "blue")
ZONE = f"{DRIVER}/zone"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Object], list[Object], list[str]]:
    """Devices, claims for them, and which devices are taken."""
    devices = []
    for at in range(draw(st.integers(1, 5))):
        attributes: Object = {"colour": draw(st.sampled_from(COLOURS))}
        if draw(st.booleans()):
            attributes["zone"] = draw(st.integers(0, 1))
        shared = draw(st.booleans())
        memory: Object = {"value": str(draw(st.integers(1, 4)))}
        if shared:
            memory["requestPolicy"] = {"default": "1", "validRange": {"min": "1"}}
        taints = [{"key": "sick", "effect": "NoSchedule"}] if draw(st.integers(0, 5)) == 0 else []
        draws = [{"counterSet": "set", "counters": {"slices": {"value": str(draw(st.integers(1, 2)))}}}]
        devices.append(
            device(
                f"d{at}", attributes=attributes, capacity={"memory": memory}, allowMultipleAllocations=shared,
                taints=taints, consumesCounters=draws if draw(st.booleans()) else [],
            )
        )  # fmt: skip
    claims = [draw(_claims(f"c{at}")) for at in range(draw(st.integers(1, 2)))]
    taken = draw(st.lists(st.sampled_from([each["name"] for each in devices]), max_size=1))
    return devices, claims, taken


@st.composite
def _claims(draw: st.DrawFn, name: str) -> Object:
    requests: list[Object] = []
    for at in range(draw(st.integers(1, 2))):
        alternatives = [draw(_asks()) for _ in range(draw(st.integers(1, 2)))]
        if len(alternatives) == 1:
            requests.append({"name": f"r{at}", "exactly": alternatives[0]})
        else:
            first = [{"name": f"s{number}", **each} for number, each in enumerate(alternatives)]
            requests.append({"name": f"r{at}", "firstAvailable": first})
    constraints = []
    kind = draw(st.sampled_from(("", "matchAttribute", "distinctAttribute")))
    # All that break a constraint end the search, whatever else might be had.
    if kind and "All" not in str(requests):
        named = draw(st.sampled_from(([], ["r0"])))
        constraints.append({kind: ZONE, **({"requests": named} if named else {})})
    return claim(name, *requests, constraints=constraints)


@st.composite
def _asks(draw: st.DrawFn) -> Object:
    said: Object = {}
    if draw(st.integers(0, 4)) == 0:
        said["allocationMode"] = "All"
    else:
        said["count"] = draw(st.integers(1, 2))
    if draw(st.booleans()):
        said["capacity"] = {"requests": {"memory": str(draw(st.integers(1, 3)))}}
    if draw(st.integers(0, 4)) == 0:
        said["tolerations"] = [{"operator": "Exists"}]
    colour = draw(st.sampled_from(("", *COLOURS)))
    return exactly(*([f"device.attributes['{DRIVER}'].colour == '{colour}'"] if colour else []), **said)


def slices_of(devices: list[Object], counters: int) -> list[Object]:
    pool = {"name": "n", "generation": 1, "resourceSliceCount": 2}
    sets = [{"name": "set", "counters": {"slices": {"value": str(counters)}}}]
    shared = {"driver": DRIVER, "pool": pool, "nodeName": "n", "sharedCounters": sets}
    return [
        device_slice("n", *devices, pool=pool),
        {"metadata": {"name": "sets"}, "spec": shared},
    ]


# The oracle: another program, that tries every choice of devices and then looks whether it keeps the rules.


def _choices(found: Object, devices: list[Object]) -> Iterator[Choice]:
    requests = found["spec"]["devices"]["requests"]

    def rest(at: int) -> Iterator[Choice]:
        if at == len(requests):
            yield ()
            return
        request = requests[at]
        alternatives = [(request["name"], request["exactly"])] if "exactly" in request else [
            (f"{request['name']}/{each['name']}", each) for each in request["firstAvailable"]
        ]  # fmt: skip
        for name, ask in alternatives:
            every = [each["name"] for each in devices if _selected(ask, each)]
            count = ask.get("count", 0)
            if ask["allocationMode"] == "All":
                every = [each["name"] for each in devices if _selected(ask, each) and _is_large(ask, each)]
                count = len(every)
            if count:
                for chosen in combinations(every, count):
                    for others in rest(at + 1):
                        yield ((name, chosen), *others)

    return rest(0)


def _selected(ask: Object, found: Object) -> bool:
    wanted = [each["cel"]["expression"].split("'")[-2] for each in ask.get("selectors", ())]
    return all(found["attributes"]["colour"]["string"] == colour for colour in wanted)


def _is_large(ask: Object, found: Object) -> bool:
    return _amount(ask, found) <= int(found["capacity"]["memory"]["value"])


def _amount(ask: Object, found: Object) -> int:
    """How much of a device's memory a request takes."""
    asked = ask.get("capacity", {}).get("requests", {}).get("memory")
    default = 1 if found["allowMultipleAllocations"] else int(found["capacity"]["memory"]["value"])
    return int(asked) if asked else default


def _ask_of(found: Object, name: str) -> Object:
    parent, _, sub = name.partition("/")
    for request in found["spec"]["devices"]["requests"]:
        if request["name"] == parent:
            every = {"": request.get("exactly")} | {
                each["name"]: each for each in request.get("firstAvailable", ())
            }
            return every[sub]  # type: ignore[no-any-return]
    raise AssertionError(name)


def _keeps_the_rules(
    claims: list[Object], choices: list[Choice], devices: list[Object], taken: list[str], counters: int
) -> bool:
    by_name = {each["name"]: each for each in devices}
    uses: dict[str, list[int]] = {}
    for found, choice in zip(claims, choices, strict=True):
        for name, chosen in choice:
            ask = _ask_of(found, name)
            for each in chosen:
                it = by_name[each]
                uses.setdefault(each, []).append(_amount(ask, it))
                if it["taints"] and not ask.get("tolerations"):
                    return False
        if not _constrained(found, choice, by_name):
            return False
    for each, amounts in uses.items():
        it = by_name[each]
        if each in taken or (len(amounts) > 1 and not it["allowMultipleAllocations"]):
            return False
        if sum(amounts) > int(it["capacity"]["memory"]["value"]):
            return False
    drawn = sum(
        int(draws["counters"]["slices"]["value"])
        for each in {*uses, *taken}
        for draws in by_name[each]["consumesCounters"]
    )
    new = any(by_name[each]["consumesCounters"] for each in uses)
    return drawn <= counters or not new


def _constrained(found: Object, choice: Choice, by_name: dict[str, Object]) -> bool:
    for rule in found["spec"]["devices"]["constraints"]:
        named = rule.get("requests")
        values = [
            by_name[each]["attributes"].get("zone", {}).get("int")
            for name, chosen in choice
            if not named or name.partition("/")[0] in named
            for each in chosen
        ]
        if None in values:
            return False
        if "matchAttribute" in rule and len(set(values)) > 1:
            return False
        if "distinctAttribute" in rule and len(set(values)) < len(values):
            return False
    return True


def _possible(
    claims: list[Object], devices: list[Object], taken: list[str], counters: int
) -> Iterator[list[Choice]]:
    def rest(at: int, before: list[Choice]) -> Iterator[list[Choice]]:
        if at == len(claims):
            if _keeps_the_rules(claims, before, devices, taken, counters):
                yield before
            return
        for choice in _choices(claims[at], devices):
            yield from rest(at + 1, [*before, choice])

    return rest(0, [])


def _as_choice(picks: list[Pick]) -> Choice:
    chosen: dict[str, tuple[str, ...]] = {}
    for pick in picks:
        chosen[pick.ask.name] = (*chosen.get(pick.ask.name, ()), pick.device.id.name)
    return tuple(chosen.items())


@settings(max_examples=400, deadline=None)
@given(worlds(), st.integers(1, 4))
def test_devices_are_found_where_there_are_any_and_never_given_twice(
    drawn: tuple[list[Object], list[Object], list[str]], counters: int
) -> None:
    devices, claims, taken = drawn
    asked = [asks.read(each, {"gpu": CLASS}.get) for each in claims]
    held = Taken({DeviceId(DRIVER, "n", each) for each in taken})
    pools = Pools(slices_of(devices, counters)).on(NODE)
    found = Search(asked, pools, held, Effort(1_000_000)).run()
    possible = next(_possible(claims, devices, taken, counters), None)
    if found is None:
        assert possible is None
        return
    choices = [_as_choice(picks) for picks in found]
    assert _keeps_the_rules(claims, choices, devices, taken, counters)
    # The best alternatives that go together, requests in their order, are what the first solution has.
    assert possible is not None
    assert [[name for name, _ in each] for each in choices] == [
        [name for name, _ in each] for each in possible
    ]


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_a_search_leaves_what_is_taken_as_it_was(
    drawn: tuple[list[Object], list[Object], list[str]],
) -> None:
    devices, claims, taken = drawn
    asked = [asks.read(each, {"gpu": CLASS}.get) for each in claims]
    held = Taken({DeviceId(DRIVER, "n", each) for each in taken})
    held.add(DeviceId(DRIVER, "n", "d0"), {"memory": Fraction(1)})
    before = (set(held.devices), {key: dict(value) for key, value in held.parts.items()})
    Search(asked, Pools(slices_of(devices, 3)).on(NODE), held, Effort(1_000_000)).run()
    assert before == (held.devices, held.parts)
