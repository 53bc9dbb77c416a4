"""Domains of agents' own: whose they are, what they lead to, and that nobody takes another's."""

from __future__ import annotations

from typing import Any

import pytest
from support.functions import DOMAIN, Stage, service, stage
from support.world import AGENT

from walras.functions import domains
from walras.functions.words import CLAIMS, DOMAIN_MAPPINGS
from walras.kube import validation
from walras.kube.registry_builtin import for_agents
from walras.tenants.objects import AGENTS, FLEET

Object = dict[str, Any]
KIND = for_agents()[DOMAIN_MAPPINGS]
SHOP = "www.shop.example"


def mapping(domain: str = SHOP, **ref: str) -> Object:
    said = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", **ref}
    return {"metadata": {"name": domain}, "spec": {"ref": said}}


async def mapped(on: Stage, made: Object, cluster: str = AGENT) -> None:
    await on.world.create(DOMAIN_MAPPINGS, made, cluster)
    await on.world.settle()


def conditions(on: Stage, domain: str = SHOP, cluster: str = AGENT) -> dict[str, tuple[str, str]]:
    said = on.status(DOMAIN_MAPPINGS, domain, cluster)["conditions"]
    return {each["type"]: (each["status"], each.get("reason", "")) for each in said}


def claims(on: Stage) -> dict[str, tuple[str, str]]:
    found = on.world.api.list(FLEET, CLAIMS)
    return {each["metadata"]["name"]: (each["spec"]["agent"], each["spec"]["namespace"]) for each in found}


async def unmapped(on: Stage, domain: str = SHOP, cluster: str = AGENT) -> None:
    await on.world.api.delete(cluster, DOMAIN_MAPPINGS, "default", domain)
    await on.world.settle()


def test_a_function_is_asked_at_a_domain_that_is_mapped_to_it() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await mapped(on, mapping())
        assert conditions(on) == {
            "Ready": ("True", ""),
            "DomainClaimed": ("True", ""),
            "ReferenceResolved": ("True", ""),
            "IngressReady": ("True", ""),
            "CertificateProvisioned": ("True", "TLSNotEnabled"),
        }
        said = on.status(DOMAIN_MAPPINGS, SHOP)
        assert said["url"] == f"http://{SHOP}" == said["address"]["url"]
        for host in (SHOP, f"{SHOP}:80", f"{SHOP}.", SHOP.upper()):
            assert (await on.get(host)).revision == "hello-00001"
        assert (await on.get("other.example")).status == 404
        await unmapped(on)
        assert (await on.get(SHOP)).status == 404 and not claims(on)

    stage(story)


def test_a_mapping_waits_for_what_it_refers_to() -> None:
    async def story(on: Stage) -> None:
        await mapped(on, mapping())
        assert conditions(on)["ReferenceResolved"] == ("False", "ResolveFailed")
        assert conditions(on)["Ready"][0] == "False" and (await on.get(SHOP)).status == 404
        await on.apply(service())
        assert conditions(on)["IngressReady"] == ("Unknown", "IngressNotConfigured")
        await on.run_all()
        await on.world.settle()
        assert on.ready_of(DOMAIN_MAPPINGS, SHOP) == ("True", "")

    stage(story)


def test_a_domain_is_the_first_ones_until_it_gives_it_up() -> None:
    async def story(on: Stage) -> None:
        for agent in ("one", "two"):
            await on.ready(service(), agent)
            await mapped(on, mapping(), agent)
        assert claims(on) == {SHOP: ("one", "default")}
        assert conditions(on, cluster="two")["DomainClaimed"] == ("False", "DomainAlreadyClaimed")
        assert conditions(on, cluster="two")["Ready"] == ("False", "DomainAlreadyClaimed")
        (event,) = [
            each
            for each in on.world.api.list("two", "events")
            if each["involvedObject"]["kind"] == "DomainMapping"
        ]
        assert (event["type"], event["reason"]) == ("Warning", "InternalError")
        assert event["message"] == f'namespace "default" does not own cluster domain claim for "{SHOP}"'
        pod = on.world.pods(cluster="one")[0]["metadata"]["name"]
        assert (await on.get(SHOP)).body.decode().split(" ")[1] == pod
        await unmapped(on, cluster="one")
        assert claims(on) == {SHOP: ("two", "default")}
        assert conditions(on, cluster="two")["Ready"][0] == "True"

    stage(story, agents=("one", "two"))


def test_a_status_that_an_agent_writes_itself_gets_it_no_domain() -> None:
    async def story(on: Stage) -> None:
        for agent in ("one", "two"):
            await on.ready(service(), agent)
            await mapped(on, mapping(), agent)

        def pretend(latest: Object) -> None:
            for each in latest["status"]["conditions"]:
                each["status"] = "True"

        await on.world.api.edit("two", DOMAIN_MAPPINGS, "default", SHOP, pretend)
        await on.world.settle()
        assert conditions(on, cluster="two")["DomainClaimed"] == ("False", "DomainAlreadyClaimed")
        pod = on.world.pods(cluster="one")[0]["metadata"]["name"]
        assert pod in (await on.get(SHOP)).body.decode()

    stage(story, agents=("one", "two"))


@pytest.mark.parametrize(
    "name", [f"hello.default.two.{DOMAIN}", f"a.{DOMAIN}", DOMAIN, "walras.example", "svc.cluster.local"]
)
def test_names_of_others_functions_and_of_the_server_are_nobodys(name: str) -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(), "two")
        await on.ready(service(), "one")
        await mapped(on, mapping(name), "one")
        assert conditions(on, name, "one")["DomainClaimed"] == ("False", "DomainClaimFailed")
        assert not claims(on)
        answer = await on.get(f"hello.default.two.{DOMAIN}")
        assert on.world.pods(cluster="two")[0]["metadata"]["name"] in answer.body.decode()

    stage(story, agents=("one", "two"), own_host="walras.example")


def test_a_mapping_leads_to_nothing_of_another_namespace_or_cluster() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(), "two")
        await mapped(on, mapping(), "one")
        assert (await on.get(SHOP)).status == 404
        await on.ready(service(), "one")
        await mapped(on, mapping("far.example", namespace="kube-system"), "one")
        assert conditions(on, "far.example", "one")["ReferenceResolved"] == ("False", "ResolveFailed")
        assert (await on.get("far.example")).status == 404

    stage(story, agents=("one", "two"))


def test_a_function_for_its_cluster_alone_is_so_at_a_domain_too() -> None:
    async def story(on: Stage) -> None:
        made = service()
        made["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
        await on.ready(made, "one")
        await mapped(on, mapping(), "one")
        assert (await on.get(SHOP)).status == 401
        assert (await on.get(SHOP, within="one")).status == 200
        # Pods of others find no such name.
        assert (await on.get(SHOP, within="two")).status == 404

    stage(story, agents=("one", "two"))


def test_an_agent_claims_only_so_many_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "CLAIMS_MAX", 2)

    async def story(on: Stage) -> None:
        for number in range(3):
            await mapped(on, mapping(f"{number}.example"))
        assert conditions(on, "2.example")["DomainClaimed"] == ("False", "DomainClaimFailed")
        assert len(claims(on)) == 2

    stage(story)


def test_the_operator_may_say_before_whose_a_domain_is_and_it_stays_so() -> None:
    async def story(on: Stage) -> None:
        spec = {"agent": "two", "namespace": "default"}
        await on.world.api.create(FLEET, CLAIMS, {"metadata": {"name": SHOP}, "spec": spec})
        await on.ready(service(), "one")
        await mapped(on, mapping(), "one")
        assert conditions(on, cluster="one")["DomainClaimed"] == ("False", "DomainAlreadyClaimed")
        await on.ready(service(), "two")
        await mapped(on, mapping(), "two")
        assert conditions(on, cluster="two")["Ready"][0] == "True"
        await unmapped(on, cluster="two")
        assert claims(on) == {SHOP: ("two", "default")}
        await on.world.api.delete(FLEET, CLAIMS, "", SHOP)
        await on.world.settle()
        assert claims(on) == {SHOP: ("one", "default")}

    stage(story, agents=("one", "two"))


def test_the_operator_may_keep_a_domain_from_all_agents() -> None:
    async def story(on: Stage) -> None:
        spec = {"agent": FLEET, "namespace": "default"}
        await on.world.api.create(FLEET, CLAIMS, {"metadata": {"name": SHOP}, "spec": spec})
        await on.ready(service())
        await mapped(on, mapping())
        assert conditions(on)["DomainClaimed"] == ("False", "DomainAlreadyClaimed")
        assert (await on.get(SHOP)).status == 404
        assert claims(on) == {SHOP: (FLEET, "default")}

    stage(story)


def test_a_domain_whose_agent_is_gone_is_free() -> None:
    async def story(on: Stage) -> None:
        for agent in ("one", "two"):
            await on.ready(service(), agent)
            await mapped(on, mapping(), agent)
        await on.world.api.delete(FLEET, AGENTS, "", "one")
        await on.until(lambda: claims(on) == {SHOP: ("two", "default")})

    stage(story, agents=("one", "two"))


def test_a_claim_whose_mapping_is_gone_ends_at_the_next_start() -> None:
    async def story(on: Stage) -> None:
        await mapped(on, mapping())
        await on.functions.stop()
        await on.world.api.delete(AGENT, DOMAIN_MAPPINGS, "default", SHOP)
        await on.world.settle()
        assert claims(on)
        on.__post_init__()
        await on.functions.start()
        await on.world.settle()
        assert not claims(on)

    stage(story)


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (mapping("localhost"), ""),
        (mapping("192.0.2.7"), ""),
        (mapping("-a.example.com"), ""),
        (mapping("a.svc.cluster.local"), ""),
        (mapping(kind="Deployment"), "spec.ref.kind"),
        (mapping(apiVersion="v1"), "spec.ref"),
        ({**mapping(), "spec": {**mapping()["spec"], "tls": {"secretName": "mine"}}}, "spec"),
        ({**mapping(), "spec": {}}, "spec.ref"),
    ],
)
def test_what_is_no_mapping_is_refused_with_its_field(made: Object, field: str) -> None:
    made["metadata"] = {"namespace": "default", "uid": "u", **made["metadata"]}
    assert field in [each.field for each in validation.validate(KIND, made, None)]


def test_what_knative_takes_is_taken() -> None:
    for made in (mapping(), mapping(kind="Route"), mapping("a.b.c.d.example"), mapping(namespace="default")):
        made["metadata"] = {"namespace": "default", "uid": "u", **made["metadata"]}
        assert not validation.validate(KIND, made, None)
