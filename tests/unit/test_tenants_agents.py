"""An Agent of the fleet becomes a cluster with a token, and takes both along when it goes."""

import base64

import yaml
from structlog.testing import capture_logs
from support.world import AGENT, CA, ENDPOINT, World, agent, condition, job, pod, tell

from walras.core.clock import SequenceIds
from walras.exchange.accounts import FINALIZER
from walras.kube.hub import View
from walras.tenants.agents import CONTROL_PLANE
from walras.tenants.planes import ControlPlanes

AGENTS = "agents.walras.dev"
TWO = (AGENT, "zoo")


def secret(world: World, key: str, name: str = AGENT) -> str:
    data = world.api.get("fleet", "secrets", "walras-system", f"agent-{name}")["data"]
    return base64.b64decode(data[key]).decode()


def test_an_agent_gets_a_cluster_with_namespaces_and_a_base_node() -> None:
    async def story(world: World) -> None:
        made = world.api.get("fleet", AGENTS, "", AGENT)
        assert condition(made, "Ready") == "True"
        assert made["status"]["endpoint"] == f"{ENDPOINT}/clusters/{AGENT}"
        assert made["metadata"]["finalizers"] == [CONTROL_PLANE]
        names = [each["metadata"]["name"] for each in world.api.list(AGENT, "namespaces")]
        assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
        for name in names:
            assert world.api.get(AGENT, "serviceaccounts", name, "default")
            assert world.api.get(AGENT, "configmaps", name, "kube-root-ca.crt")["data"] == {"ca.crt": CA}
        node = world.api.get(AGENT, "nodes", "", "base")
        base = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "100Gi", "pods": "110"}
        assert node["status"]["allocatable"] == base
        assert condition(node, "Ready") == "True"

    tell(story)


def test_the_kubeconfig_names_server_authority_token_and_context() -> None:
    async def story(world: World) -> None:
        config = yaml.safe_load(secret(world, "kubeconfig"))
        (cluster,), (user,), (context,) = config["clusters"], config["users"], config["contexts"]
        assert config["current-context"] == context["name"] == "walras-acme"
        assert context["context"]["cluster"] == cluster["name"] and context["context"]["user"] == user["name"]
        assert cluster["cluster"]["server"] == "https://127.0.0.1:6443/clusters/acme"
        assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode() == CA
        assert user["user"]["token"] == secret(world, "token")

    tell(story)


def test_a_token_opens_its_own_cluster_and_no_other() -> None:
    async def story(world: World) -> None:
        identify = world.planes.authenticator.identify
        mine, other = identify(secret(world, "token")), identify(secret(world, "token", "zoo"))
        assert mine is not None and mine.cluster == AGENT
        assert other is not None and other.cluster == "zoo"
        operator = identify(world.planes.operator_token)
        assert operator is not None and operator.cluster == ""
        assert identify("") is None and identify(secret(world, "token") + "x") is None

    tell(story, agents=(AGENT, "zoo"))


def test_a_deleted_agent_takes_cluster_and_token_along() -> None:
    async def story(world: World) -> None:
        token = secret(world, "token")
        await world.api.delete("fleet", AGENTS, "", AGENT)
        assert world.planes.authenticator.identify(token) is None
        await world.settle()
        assert world.api.clusters() == ["fleet"]
        assert world.api.find("fleet", AGENTS, "", AGENT) is None
        assert world.api.find("fleet", "secrets", "walras-system", f"agent-{AGENT}") is None

    tell(story)


def test_a_busy_cluster_goes_without_a_trace_and_without_an_error() -> None:
    async def story(world: World) -> None:
        await world.create("jobs.batch", job(completions=3, parallelism=3))
        await world.create("namespaces", {"metadata": {"name": "lab"}})
        await world.settle()
        await world.create("pods", pod("late"))
        with capture_logs() as logs:
            await world.api.delete("fleet", AGENTS, "", AGENT)
            await world.settle()
        assert logs == []
        assert world.api.clusters() == ["fleet", "zoo"]
        assert {cluster for cluster, _ in world.api.everywhere("pods")} == set()

    tell(story, agents=(AGENT, "zoo"))


def test_the_cluster_stays_until_the_exchange_has_ended_the_leases() -> None:
    async def story(world: World) -> None:
        token = secret(world, "token")
        await world.api.edit(
            "fleet", AGENTS, "", AGENT, lambda it: it["metadata"]["finalizers"].append(FINALIZER)
        )
        await world.api.delete("fleet", AGENTS, "", AGENT)
        await world.settle()
        assert world.api.has_cluster(AGENT)
        assert world.planes.authenticator.identify(token) is None
        await world.api.edit(
            "fleet", AGENTS, "", AGENT, lambda it: it["metadata"]["finalizers"].remove(FINALIZER)
        )
        await world.settle()
        assert not world.api.has_cluster(AGENT)
        assert world.api.find("fleet", AGENTS, "", AGENT) is None

    tell(story)


def test_an_agent_of_the_same_name_inherits_nothing() -> None:
    async def story(world: World) -> None:
        before = secret(world, "token")
        await world.create("configmaps", {"metadata": {"name": "mine"}})
        # Deleted by force, and made again before anybody looked.
        transaction = world.api.transaction()
        transaction.edit("fleet", AGENTS, "", AGENT, lambda it: it["metadata"].pop("finalizers"))
        transaction.delete("fleet", AGENTS, "", AGENT)
        transaction.create("fleet", AGENTS, agent(AGENT))
        await transaction.commit()
        await world.settle()
        assert world.api.find(AGENT, "configmaps", "default", "mine") is None
        assert secret(world, "token") != before
        assert world.planes.authenticator.identify(before) is None
        assert condition(world.api.get("fleet", AGENTS, "", AGENT), "Ready") == "True"

    tell(story)


def test_a_name_is_free_when_nothing_of_the_agent_is_left_on_the_machine() -> None:
    async def story(world: World) -> None:
        ends = {"acme": False}

        async def forget(name: str) -> bool:
            assert not world.api.has_cluster(name)
            return ends.get(name, True)

        world.planes.agents.forget = forget
        await world.api.delete("fleet", AGENTS, "", AGENT)
        await world.settle()
        assert not world.api.has_cluster(AGENT)
        assert world.api.get("fleet", AGENTS, "", AGENT)["metadata"]["finalizers"] == [CONTROL_PLANE]
        # Nor does force make it free, nor the end of the server meanwhile.
        await world.api.edit("fleet", AGENTS, "", AGENT, lambda it: it["metadata"].pop("finalizers"))
        await world.agent(AGENT)
        assert not world.api.has_cluster(AGENT)
        ends.clear()
        await world.later(0.02)
        assert condition(world.api.get("fleet", AGENTS, "", AGENT), "Ready") == "True"
        assert world.api.has_cluster(AGENT)

    tell(story)


def test_an_event_that_waits_to_be_written_is_not_told_to_the_next_agent_of_the_name() -> None:
    async def story(world: World) -> None:
        pod = {"kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u"}}
        world.planes.recorder.event(AGENT, pod, "Warning", "Failed", "secret.example/app: no such image")
        # The store is slow, or refuses writes for a while.
        waiting = world.planes.recorder._waiting.copy()
        await world.api.delete("fleet", AGENTS, "", AGENT)
        await world.settle()
        await world.agent(AGENT)
        world.planes.recorder._waiting.extend(waiting)
        world.planes.recorder.event(AGENT, pod, "Normal", "Pulled", "of its own")
        await world.settle()
        assert [each["message"] for each in world.api.list(AGENT, "events")] == ["of its own"]

    tell(story)


def test_an_agent_cannot_take_the_operators_cluster() -> None:
    async def story(world: World) -> None:
        made = await world.agent("fleet")
        assert condition(made, "Ready") == "False"
        await world.api.delete("fleet", AGENTS, "", "fleet")
        await world.settle()
        assert world.api.has_cluster("fleet")
        assert world.planes.authenticator.identify(world.planes.operator_token) is not None

    tell(story)


def test_a_name_that_is_no_label_is_refused_with_a_reason() -> None:
    async def story(world: World) -> None:
        made = await world.agent("a.b")
        (ready,) = made["status"]["conditions"]
        assert (ready["status"], ready["reason"]) == ("False", "InvalidName")
        assert "a.b" in ready["message"]
        assert not world.api.has_cluster("a.b")

    tell(story)


def test_a_restart_keeps_tokens_and_follows_a_new_endpoint() -> None:
    async def story(world: World) -> None:
        token, operator = secret(world, "token"), world.planes.operator_token
        await world.planes.stop()
        # While nobody looked, one agent lost its Agent object.
        await world.api.edit("fleet", AGENTS, "", "zoo", lambda it: it["metadata"].pop("finalizers"))
        await world.api.delete("fleet", AGENTS, "", "zoo")
        again = ControlPlanes(
            world.api, world.clock, SequenceIds(), endpoint="https://new:7443", ca_pem=CA + CA
        )
        await again.start()
        await again.settle()
        assert secret(world, "token") == token and again.operator_token == operator
        assert "https://new:7443/clusters/acme" in secret(world, "kubeconfig")
        assert world.api.get(AGENT, "configmaps", "default", "kube-root-ca.crt")["data"]["ca.crt"] == CA + CA
        assert world.api.clusters() == [AGENT, "fleet"]
        await again.stop()

    tell(story, agents=(AGENT, "zoo"))


def test_what_clusters_begin_with_is_stored_in_none_but_what_tells_them_apart() -> None:
    async def story(world: World) -> None:
        cluster = world.api.state.clusters[AGENT]
        stored = {
            (resource, record.key.namespace or record.key.name)
            for resource, collection in cluster.collections.items()
            for record in collection.stored()
        }
        assert stored == {
            ("namespaces", "kube-system"),
            ("namespaces", "kube-node-lease"),
            ("serviceaccounts", "kube-node-lease"),
            ("configmaps", "kube-node-lease"),
            ("nodes", "base"),
        }
        uids = [world.api.get(each, "namespaces", "", "kube-system")["metadata"]["uid"] for each in TWO]
        assert len(set(uids)) == 2

    tell(story, agents=TWO)


def test_what_clusters_share_comes_back_when_it_is_deleted_and_watches_hear_of_both() -> None:
    async def story(world: World) -> None:
        watch = world.api.watch(View(AGENT, "serviceaccounts"))
        uids = set()
        for _ in range(2):
            await world.api.delete(AGENT, "serviceaccounts", "default", "default")
            await world.settle()
            uids.add(world.api.get(AGENT, "serviceaccounts", "default", "default")["metadata"]["uid"])
        told = [event.type for event in iter(watch.ready, None)]
        assert told == ["DELETED", "ADDED"] * 2
        watch.close()
        # What one does with its own is nothing to the others.
        other = world.api.record("zoo", "serviceaccounts", "default", "default")
        assert other is not None and not other.key.cluster
        # Each of them is another one.
        assert len(uids | {other.object["metadata"]["uid"]}) == 3

    tell(story, agents=TWO)


def test_a_token_of_a_default_account_ends_with_the_account_and_with_its_cluster() -> None:
    async def story(world: World) -> None:
        accounts = world.planes.accounts

        def token() -> str:
            return accounts.issue(AGENT, world.api.get(AGENT, "serviceaccounts", "default", "default"))

        first = token()
        assert accounts.identify(first) is not None
        await world.api.delete("fleet", AGENTS, "", AGENT)
        await world.settle()
        await world.agent()
        # Another cluster of the name, whose account is alike.
        assert accounts.identify(first) is None
        second = token()
        assert accounts.identify(second) is not None
        await world.api.delete(AGENT, "serviceaccounts", "default", "default")
        assert accounts.identify(second) is None
        assert accounts.identify(token()) is not None

    tell(story)


def test_a_cluster_that_is_emptied_of_leases_loses_their_namespace_for_good() -> None:
    async def story(world: World) -> None:
        await world.api.delete(AGENT, "namespaces", "", "kube-node-lease")
        await world.settle()
        assert world.api.find(AGENT, "namespaces", "", "kube-node-lease") is None
        assert world.api.list(AGENT, "configmaps", "kube-node-lease") == []

    tell(story)
