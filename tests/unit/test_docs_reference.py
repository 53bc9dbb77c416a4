"""The reference and the map of the code say what is there, all of it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from support import docs

from walras.cost import usage
from walras.devices.request import GpuRequest
from walras.exchange import supply
from walras.exchange.book import read_pool
from walras.exchange.explaining import QUEUED
from walras.exchange.leased import leased_slices
from walras.exchange.nodes import prospect
from walras.exchange.turns import PACKAGES_A_TURN
from walras.kube.registry_builtin import BUILTIN
from walras.market.types import Reason
from walras.runtimes.environment import gpu

KINDS = docs.DOCS / "reference" / "kinds.md"
ANNOTATIONS = docs.DOCS / "reference" / "annotations.md"
HTTP = docs.DOCS / "reference" / "http.md"
CONTRIBUTING = docs.ROOT / "CONTRIBUTING.md"
WALRAS = docs.ROOT / "walras"
LEASED = "ResourceSlice of a lease"
CRDS = sorted((WALRAS / "kube" / "crds").glob("*.yaml"))

Schema = Mapping[str, Any]


def crds() -> dict[str, Schema]:
    """The spec of every definition, by kind."""
    read = [yaml.safe_load(path.read_text()) for path in CRDS]
    definitions = [each for document in read for each in document.get("items", [document])]
    return {each["spec"]["names"]["kind"]: each["spec"] for each in definitions}


# What these have is in the table of Service, under its path there.
WITHIN_SERVICE = {"Configuration": "spec.", "Revision": "spec.template.spec.", "Route": "spec."}


# What the template of a machine has is in the table of VirtualMachineInstance.
TEMPLATE = "spec.template.spec."


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Path, schema and whether it is required, of every field that is more than a step to others."""
    for name, field in (schema.get("properties") or {}).items():
        if not path and name not in ("spec", "status"):
            continue
        here = f"{path}.{name}" if path else name
        if field.get("type") == "object" and "additionalProperties" not in field:
            yield from fields(field, here)
            continue
        yield here, field, name in schema.get("required", ())
        items = field.get("items") or {}
        if items.get("type") == "object" and name != "conditions":
            yield from fields(items, f"{here}[]")


def type_of(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if field.get("format") == "date-time":
        return "time"
    return {"array": "list"}.get(field["type"], str(field["type"]))


def fields_of(kind: str) -> dict[str, tuple[Schema, bool]]:
    schema = crds()[kind]["versions"][0]["schema"]["openAPIV3Schema"]
    return {name: (field, required) for name, field, required in fields(schema)}


def is_of_instance(kind: str, name: str) -> bool:
    return kind == "VirtualMachine" and name.startswith(TEMPLATE)


@pytest.mark.parametrize("kind", sorted(crds().keys() - WITHIN_SERVICE.keys()))
def test_every_field_of_a_kind_is_documented_with_its_type_default_and_bounds(kind: str) -> None:
    documented = {row[0].strip("`"): row[1:] for row in docs.rows(docs.section(KINDS, kind))}
    wanted = {name: said for name, said in fields_of(kind).items() if not is_of_instance(kind, name)}
    assert set(documented) == set(wanted)
    for name, (field, required) in wanted.items():
        said_type, default, meaning, writer = documented[name]
        if field.get("enum"):
            assert re.findall(r"`([^`]+)`", said_type) == field["enum"], name
        else:
            assert said_type.startswith(type_of(field)), f"{name}: {said_type} is {type_of(field)}"
        bounds = [field.get(bound) for bound in ("minimum", "maximum", "minItems", "maxItems", "maxLength")]
        bounds += [(field.get("items") or {}).get("maxLength")]
        bounds += [(field.get("additionalProperties") or {}).get(bound) for bound in ("minimum", "maximum")]
        for bound in (bound for bound in bounds if bound is not None):
            assert re.search(rf"\b{bound}\b", said_type), f"{name}: {said_type} lacks {bound}"
        if "default" in field:
            is_list = isinstance(field["default"], list)
            said = yaml.safe_load(default.strip("`")) if is_list else default
            assert said == (field["default"] if is_list else f"`{field['default']}`"), name
        assert (default == "required") == required, f"{name}: {default}"
        assert meaning, name
        assert writer in ("operator", "bidder, agent", "agent", "Walras"), name
        assert (writer == "Walras") == (
            name.startswith("status.") or (kind == "GPULease" and writer != "agent")
        ), name


@pytest.mark.parametrize(("kind", "place"), WITHIN_SERVICE.items())
def test_kinds_that_a_service_is_made_of_have_no_fields_that_it_has_not(kind: str, place: str) -> None:
    of_service = fields_of("Service")
    for name, (field, _) in fields_of(kind).items():
        whole = name if name.startswith("status.") else place + name.removeprefix("spec.")
        assert of_service[whole][0] == field


def test_the_template_of_a_machine_is_the_spec_of_an_instance() -> None:
    template = {
        f"spec.{name.removeprefix(TEMPLATE)}": field
        for name, field in fields_of("VirtualMachine").items()
        if name.startswith(TEMPLATE)
    }
    assert template == {
        name: field for name, field in fields_of("VirtualMachineInstance").items() if name.startswith("spec.")
    }


def test_every_kind_has_its_section() -> None:
    assert {*crds(), LEASED} == set(re.findall(r"^## (.+)$", KINDS.read_text(), re.M))


def test_what_a_lease_publishes_of_its_devices_is_documented() -> None:
    documented: tuple[set[str], set[str]] = (set(), set())
    for names, share, instance in docs.rows(docs.section(KINDS, LEASED)):
        group = names.strip("`").partition(".")[0] if "." in names else ""
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            for shown, said in zip(documented, (share, instance), strict=True):
                if said != "absent":
                    shown.add(f"{group}.{name}" if group else name)
    found = supply.detect("emulated:1:H100")
    pool = read_pool({"metadata": {"name": "default"}}, found.devices)
    asked = GpuRequest(1, 1000), GpuRequest(1, 143, 9728, "1g.10gb")
    for request, expected in zip(asked, documented, strict=True):
        lease = prospect(request, found.devices, pool, found)
        (device,) = leased_slices(lease, found)[0]["spec"]["devices"]
        published = {key for key in device if key not in ("attributes", "capacity")}
        published |= {f"{part}.{key}" for part in ("attributes", "capacity") for key in device[part]}
        assert published == expected


def names_in_the_code() -> set[str]:
    """Every `walras.dev/...` name in the package, API versions left out."""
    text = "\n".join(path.read_text() for path in WALRAS.rglob("*.py"))
    return set(re.findall(r"[\"'\[]walras\.dev/([a-z][a-z-]*)[\"'\]]", text))


def test_every_label_annotation_and_resource_of_walras_is_documented_and_no_other() -> None:
    documented = {
        row[0].strip("`").removeprefix("walras.dev/")
        for row in docs.rows(ANNOTATIONS.read_text())
        if row[0].startswith("`walras.dev/")
    }
    assert documented == names_in_the_code()


def test_the_variables_that_a_container_finds_are_documented() -> None:
    def variables(enforcement: str) -> set[str]:
        devices = f'[{{"device":"d","index":0,"milliGPU":500,"memoryMiB":1,"enforcement":"{enforcement}"}}]'
        return set(gpu({"metadata": {"annotations": {"walras.dev/devices": devices}}}).env)

    documented = {row[0].strip("`") for row in docs.rows(docs.section(ANNOTATIONS, "In the container"))}
    assert documented == variables("emulated") | variables("timeslice") | variables("mps")


def test_the_served_types_and_their_subresources_are_those_of_the_registry() -> None:
    rows = [row for row in docs.rows(docs.section(HTTP, "Types")) if row[0].endswith("v1`") or "/v" in row[0]]
    documented = [
        (row[0].strip("`"), plural, below.split(", ") if below else [])
        for row in rows
        for plural, below in re.findall(r"`([a-z]+)`(?: \(([^)]*)\))?", row[1])
    ]
    served = [(each.api_version, each.plural, list(each.subresources)) for each in BUILTIN]
    assert documented == served


def test_the_ways_to_sum_up_cost_are_documented() -> None:
    cost = docs.section(HTTP, "Prices, cost, ledger, quotes and grants")
    assert set(usage.GROUPS) <= set(re.findall(r"`([a-z]+)`", cost))


def test_every_reason_for_a_refusal_is_explained() -> None:
    refusals = docs.section(docs.DOCS / "concepts" / "market.md", "Refusals")
    assert {row[0].strip("`") for row in docs.rows(refusals)} == {*Reason, QUEUED}
    assert f"{PACKAGES_A_TURN} packages" in refusals


FOLDERS = ("walras", "bench", "examples", "tests/support", "tests/differential", "tests/conformance")


def mapped() -> set[str]:
    """The modules that the map of the code names, by path."""
    found = set()
    for part in docs.section(CONTRIBUTING, "Map of the code").split("\n### ")[1:]:
        folder = part.partition("\n")[0].strip("`")
        if folder.startswith(FOLDERS):
            found |= {f"{folder}/{row[0].strip('`')}" for row in docs.rows(part)}
    return found


def test_the_map_of_the_code_names_every_module_and_none_that_is_gone() -> None:
    modules = {
        str(path.relative_to(docs.ROOT))
        for folder in FOLDERS
        for path in (docs.ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert mapped() == modules


def test_the_map_of_the_code_has_every_package_and_script() -> None:
    text = docs.section(CONTRIBUTING, "Map of the code")
    titles = set(re.findall(r"^### `(.+)`$", text, re.M))
    packages = {
        str(path.parent.relative_to(docs.ROOT))
        for path in WALRAS.rglob("__init__.py")
        if path.parent != WALRAS
    }
    assert packages <= titles
    scripts = {row[0].strip("`") for row in docs.rows(docs.section(CONTRIBUTING, "`scripts`"))}
    assert scripts == {path.name for path in (docs.ROOT / "scripts").iterdir()}


def test_the_map_of_the_code_is_in_the_order_of_the_import_contract() -> None:
    titles = re.findall(r"^### `walras/(\w+)`$", docs.section(CONTRIBUTING, "Map of the code"), re.M)
    project = (docs.ROOT / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[\n(.*?)^\]", project, re.M | re.S)
    assert layers is not None
    assert titles == re.findall(r"\b([a-z]+)\b", layers[1])
