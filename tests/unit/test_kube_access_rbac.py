"""RBAC over HTTP: what roles give, what nobody can give who does not have it, who may act for whom."""

from __future__ import annotations

from typing import Any

import pytest
from support.access import RBAC, Place, group, robot, rule, tell, user

from walras.kube.access.rules import ATOMS_MAX
from walras.kube.access.words import GROUP

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
ROBOT = "system:serviceaccount:default:robot"
MYSELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def robot_token(place: Place) -> str:
    await place.account()
    return await place.token()


def test_an_account_without_a_binding_may_only_find_out_what_there_is() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        for path in ("/api", "/apis", "/apis/apps", "/openapi/v3", "/version", "/healthz"):
            assert await place.get(token, path) in (200, 404), path
        denied = f'is forbidden: User "{ROBOT}" cannot'
        here = 'in API group "" in the namespace "default"'
        refused = {
            PODS: f'pods {denied} list resource "pods" {here}',
            f"{PODS}/x": f'pods "x" {denied} get resource "pods" {here}',
            f"{PODS}/x/log": f'pods "x" {denied} get resource "pods/log" {here}',
            "/api/v1/namespaces/foo": f'namespaces "foo" {denied} get resource "namespaces" in API group "" '
            'in the namespace "foo"',
            "/apis/apps/v1/deployments": f'deployments.apps {denied} list resource "deployments" in API '
            'group "apps" at the cluster scope',
            "/walras/v1/prices": f'forbidden: User "{ROBOT}" cannot get path "/walras/v1/prices"',
        }
        for path, message in refused.items():
            answer = await place.ask(token, "GET", path)
            assert answer.status_code == 403 and answer.json()["message"] == message
        assert (await place.ask(token, "GET", PODS)).json()["details"] == {"kind": "pods"}

    tell(story)


@pytest.mark.parametrize("path", [f"{PODS}?watch=1", PODS, f"{PODS}/x", f"{PODS}/x/proxy/y", f"{PODS}/x/log"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_no_method_reaches_what_no_rule_allows(method: str, path: str) -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        assert (await place.ask(token, method, path)).status_code == 403

    tell(story)


def test_a_role_binding_gives_a_cluster_role_in_its_namespace_alone() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.bind("view", robot(), namespace="default")
        assert await place.get(token, PODS) == 200
        assert await place.get(token, "/api/v1/namespaces/other/pods") == 403
        assert await place.get(token, "/api/v1/pods") == 403
        assert await place.get(token, "/api/v1/namespaces/default/secrets") == 403
        assert (await place.ask(token, "POST", MAPS, {"metadata": {"name": "x"}})).status_code == 403
        await place.bind("edit", robot(), namespace="default")
        assert (await place.ask(token, "POST", MAPS, {"metadata": {"name": "x"}})).status_code == 201
        await place.must("one", "DELETE", f"{RBAC}/namespaces/default/rolebindings/view")
        await place.must("one", "DELETE", f"{RBAC}/namespaces/default/rolebindings/edit")
        assert await place.get(token, PODS) == 403

    tell(story)


def test_a_rule_with_names_allows_those_and_a_list_that_selects_one() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.role("one-map", rule("get list watch delete", "configmaps", "", "mine"))
        await place.bind("one-map", robot())
        for name in ("mine", "other"):
            await place.must("one", "POST", MAPS, {"metadata": {"name": name}})
        assert await place.get(token, f"{MAPS}/mine") == 200
        assert await place.get(token, f"{MAPS}/other") == 403
        assert await place.get(token, MAPS) == 403
        assert await place.get(token, f"{MAPS}?fieldSelector=metadata.name%3Dmine") == 200
        assert await place.get(token, f"{MAPS}?fieldSelector=metadata.name%3Dother") == 403
        assert (await place.ask(token, "DELETE", MAPS)).status_code == 403

    tell(story)


def test_a_list_that_selects_two_names_is_not_taken_for_one_of_them() -> None:
    """The selector is of both, so what the first of them allows finds only what is called both: nothing."""

    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.role("one-map", rule("list", "configmaps", "", "mine"))
        await place.bind("one-map", robot())
        await place.must("one", "POST", MAPS, {"metadata": {"name": "other"}})
        fields = "metadata.name%3Dmine,metadata.name%3Dother"
        answer = await place.ask(token, "GET", f"{MAPS}?fieldSelector={fields}")
        assert answer.status_code == 200 and answer.json()["items"] == []
        for odd in ("metadata.name!%3Dmine", "metadata.name%3D", "metadata.name%3D%3Dmine,x%3D"):
            answer = await place.ask(token, "GET", f"{MAPS}?fieldSelector={odd}")
            assert answer.status_code in (400, 403) or answer.json()["items"] == []

    tell(story)


def test_subresources_are_allowed_by_name_and_by_star() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.role("scale", rule("get", "*/scale", "*"))
        await place.bind("scale", robot())
        scale = "/apis/apps/v1/namespaces/default/deployments/x"
        assert await place.get(token, f"{scale}/scale") == 404
        assert await place.get(token, scale) == 403
        assert await place.get(token, f"{scale}/status") == 403

    tell(story)


def test_a_binding_to_a_role_that_is_not_there_says_so_in_the_refusal() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.bind("nothing", robot())
        message = (await place.ask(token, "GET", PODS)).json()["message"]
        assert message.endswith(': RBAC: clusterrole.rbac.authorization.k8s.io "nothing" not found')

    tell(story)


def test_server_side_apply_creates_only_for_those_who_may_create() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.role("patcher", rule("patch get", "configmaps"))
        await place.bind("patcher", robot())
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}
        url = f"/clusters/one{MAPS}/x?fieldManager=m"
        headers = {"authorization": f"Bearer {token}", "content-type": "application/apply-patch+yaml"}
        answer = await place.http.patch(url, json=body, headers=headers)
        assert answer.status_code == 403 and 'cannot create resource "configmaps"' in answer.json()["message"]
        await place.must("one", "POST", MAPS, {"metadata": {"name": "x"}})
        assert (await place.http.patch(url, json=body, headers=headers)).status_code == 200

    tell(story)


# Escalation


async def deputy(place: Place) -> str:
    """An account that may do everything with roles and bindings, and read pods."""
    token = await robot_token(place)
    await place.role(
        "deputy",
        rule("get list watch create update patch delete", "*", GROUP),
        rule("get list", "pods pods/log"),
    )
    await place.bind("deputy", robot())
    return token


def test_nobody_gives_what_they_do_not_have() -> None:
    async def story(place: Place) -> None:
        token = await deputy(place)
        body = {"metadata": {"name": "more"}, "rules": [rule("get delete", "pods secrets")]}
        answer = await place.ask(token, "POST", f"{RBAC}/clusterroles", body)
        assert answer.status_code == 403
        assert answer.json()["message"] == (
            'clusterroles.rbac.authorization.k8s.io "more" is forbidden: user '
            '"system:serviceaccount:default:robot" (groups=["system:serviceaccounts" '
            '"system:serviceaccounts:default" "system:authenticated"]) is attempting to grant RBAC '
            'permissions not currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
            '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}'
        )
        body["rules"] = [rule("get", "pods")]
        assert (await place.ask(token, "POST", f"{RBAC}/clusterroles", body)).status_code == 201
        more = {"rules": [rule("*", "*", "*")]}
        assert (await place.ask(token, "PATCH", f"{RBAC}/clusterroles/more", more)).status_code == 403
        assert (await place.ask(token, "PATCH", f"{RBAC}/clusterroles/deputy", more)).status_code == 403
        own = await place.must(token, "GET", f"{RBAC}/clusterroles/more")
        own["rules"] = [rule("*", "*", "*")]
        assert (await place.ask(token, "PUT", f"{RBAC}/clusterroles/more", own)).status_code == 403
        space = f"{RBAC}/namespaces/default/roles"
        body["rules"] = [rule("get", "secrets")]
        assert (await place.ask(token, "POST", space, body)).status_code == 403

    tell(story)


@pytest.mark.parametrize("wanted", ["cluster-admin", "admin", "edit"])
def test_nobody_binds_a_role_that_says_more_than_they_may(wanted: str) -> None:
    async def story(place: Place) -> None:
        token = await deputy(place)
        me = [robot()]
        for path in ("/clusterrolebindings", "/namespaces/default/rolebindings"):
            body: Any = {
                "metadata": {"name": "x"},
                "roleRef": {"kind": "ClusterRole", "name": wanted},
                "subjects": me,
            }
            assert (await place.ask(token, "POST", RBAC + path, body)).status_code == 403
            body["roleRef"]["name"] = "none"
            assert (await place.ask(token, "POST", RBAC + path, body)).status_code == 404
            body["roleRef"]["name"] = "deputy"
            assert (await place.ask(token, "POST", RBAC + path, body)).status_code == 201
            changed = {"roleRef": {"kind": "ClusterRole", "name": wanted, "apiGroup": GROUP}}
            assert (await place.ask(token, "PATCH", f"{RBAC}{path}/x", changed)).status_code in (403, 422)

    tell(story)


def test_nobody_puts_themselves_among_the_subjects_of_a_binding_of_more() -> None:
    async def story(place: Place) -> None:
        token = await deputy(place)
        await place.bind("edit", user("somebody"))
        mine = {"subjects": [robot()]}
        path = f"{RBAC}/clusterrolebindings/edit"
        assert (await place.ask(token, "PATCH", path, mine)).status_code == 403
        default = f"{RBAC}/clusterrolebindings/cluster-admin"
        assert (await place.ask(token, "PATCH", default, mine)).status_code == 403
        # What garbage collection needs is no grant.
        assert (
            await place.ask(token, "PATCH", path, {"metadata": {"finalizers": ["a/b"]}})
        ).status_code == 200
        assert (
            await place.ask(token, "PATCH", path, {"metadata": {"labels": {"a": "b"}}})
        ).status_code == 403

    tell(story)


def test_bind_and_escalate_are_verbs_that_let_one_give_more() -> None:
    async def story(place: Place) -> None:
        token = await deputy(place)
        await place.role("binder", rule("bind", "clusterroles", GROUP, "edit"))
        await place.bind("binder", robot(), namespace="default")
        body: Any = {"metadata": {"name": "x"}, "roleRef": {"kind": "ClusterRole", "name": "edit"}}
        body["subjects"] = [robot()]
        assert (await place.ask(token, "POST", f"{RBAC}/clusterrolebindings", body)).status_code == 403
        other = f"{RBAC}/namespaces/other/rolebindings"
        assert (await place.ask(token, "POST", other, body)).status_code == 403
        here = f"{RBAC}/namespaces/default/rolebindings"
        assert (await place.ask(token, "POST", here, body)).status_code == 201
        await place.role("escalator", rule("escalate", "clusterroles", GROUP))
        await place.bind("escalator", robot())
        role = {"metadata": {"name": "y"}, "rules": [rule("*", "*", "*")]}
        assert (await place.ask(token, "POST", f"{RBAC}/clusterroles", role)).status_code == 201

    tell(story)


def test_an_aggregated_role_is_only_for_those_who_may_do_everything() -> None:
    async def story(place: Place) -> None:
        token = await deputy(place)
        selector = {"clusterRoleSelectors": [{"matchLabels": {"take": "all"}}]}
        body = {"metadata": {"name": "x"}, "aggregationRule": selector, "rules": []}
        answer = await place.ask(token, "POST", f"{RBAC}/clusterroles", body)
        assert answer.status_code == 403 and answer.json()["message"].endswith(
            "must have cluster-admin privileges to use the aggregationRule"
        )
        await place.role("agg", aggregationRule=selector)
        labelled = {"aggregationRule": selector, "metadata": {"labels": {"a": "b"}}}
        for change in ({"aggregationRule": None}, {"rules": [rule("get", "pods")]}, labelled):
            assert (await place.ask(token, "PATCH", f"{RBAC}/clusterroles/agg", change)).status_code == 403
        await place.role("all", rule("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]})
        await place.bind("all", robot())
        assert (await place.ask(token, "POST", f"{RBAC}/clusterroles", body)).status_code == 201

    tell(story)


def test_a_role_that_says_too_much_to_compare_is_refused_at_once() -> None:
    async def story(place: Place) -> None:
        token = await deputy(place)
        many = [f"x{number}" for number in range(200)]
        huge = {"verbs": many, "apiGroups": many, "resources": many, "resourceNames": many}
        assert len(many) ** 4 > ATOMS_MAX
        body = {"metadata": {"name": "x"}, "rules": [huge]}
        answer = await place.ask(token, "POST", f"{RBAC}/clusterroles", body)
        assert answer.status_code == 422 and "split it up" in answer.json()["message"]

    tell(story)


# The roles that every cluster has


def test_every_cluster_has_the_roles_of_kubernetes_without_storing_them() -> None:
    async def story(place: Place) -> None:
        before = place.api.state.clusters["one"].objects
        found = await place.must("one", "GET", f"{RBAC}/clusterroles")
        names = {item["metadata"]["name"] for item in found["items"]}
        assert {"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user"} <= names
        page = await place.must("one", "GET", f"{RBAC}/clusterroles?limit=5")
        assert len(page["items"]) == 5 and page["metadata"]["remainingItemCount"] == len(names) - 5
        assert place.api.state.clusters["one"].objects == before
        assert not place.api.state.clusters["one"].collections.get(f"clusterroles.{GROUP}")

    tell(story)


def test_a_cluster_that_changes_one_has_its_own_and_the_others_do_not() -> None:
    async def story(place: Place) -> None:
        before = place.api.state.clusters["one"].objects
        path = f"{RBAC}/clusterroles/view"
        await place.must("one", "PATCH", path, {"rules": [rule("get", "pods")]})
        assert len((await place.must("one", "GET", path))["rules"]) == 1
        assert len((await place.must("two", "GET", path, cluster="two"))["rules"]) > 5
        listed = (await place.must("one", "GET", f"{RBAC}/clusterroles"))["items"]
        assert len([item for item in listed if item["metadata"]["name"] == "view"]) == 1
        assert place.api.state.clusters["one"].objects == before + 1
        await place.must("one", "DELETE", path)
        assert len((await place.must("one", "GET", path))["rules"]) > 5

    tell(story)


def test_a_list_goes_on_over_the_roles_that_are_not_stored_after_a_change() -> None:
    async def story(place: Place) -> None:
        path = f"{RBAC}/clusterroles"
        await place.role("aaa", rule("get", "pods"))
        whole = [item["metadata"]["name"] for item in (await place.must("one", "GET", path))["items"]]
        page = await place.must("one", "GET", f"{path}?limit=7")
        await place.role("zzz", rule("get", "pods"))
        names = [item["metadata"]["name"] for item in page["items"]]
        while page["metadata"].get("continue"):
            page = await place.must("one", "GET", f"{path}?limit=7&continue={page['metadata']['continue']}")
            names += [item["metadata"]["name"] for item in page["items"]]
        assert names == whole

    tell(story)


def test_a_binding_of_every_cluster_that_a_cluster_changes_holds_there() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        path = f"{RBAC}/clusterrolebindings/system:discovery"
        assert await place.get(token, "/apis") == 200
        await place.must("one", "PATCH", path, {"subjects": [user("nobody")]})
        assert await place.get(token, "/apis") == 403
        await place.must("one", "DELETE", path)
        assert await place.get(token, "/apis") == 200

    tell(story)


def test_a_binding_of_every_cluster_that_is_deleted_takes_none_of_the_clusters_own_along() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        await place.role("reader", rule("get list", "configmaps"))
        await place.bind("reader", robot())
        configs = "/api/v1/namespaces/default/configmaps"
        assert await place.get(token, configs) == 200
        gone = await place.must("one", "DELETE", f"{RBAC}/clusterrolebindings/system:discovery")
        assert gone["status"] == "Success"
        assert await place.get(token, configs) == 200
        assert await place.get(token, "/apis") == 200

    tell(story)


# Acting for somebody


def acting(name: str, *groups: str, **extra: str) -> list[tuple[str, str]]:
    headers = [("Impersonate-User", name), *(("Impersonate-Group", each) for each in groups)]
    return headers + [(f"Impersonate-Extra-{key}", value) for key, value in extra.items()]


def test_an_agent_acts_for_whom_it_likes_in_its_cluster() -> None:
    async def story(place: Place) -> None:
        await place.account()
        who = await place.ask("one", "POST", MYSELF, {}, headers=acting("alice", "dev", "ops", team="a"))
        assert who.json()["status"]["userInfo"] == {
            "username": "alice",
            "groups": ["dev", "ops", "system:authenticated"],
            "extra": {"team": ["a"]},
        }
        assert (await place.ask("one", "GET", PODS, headers=acting("alice", "dev"))).status_code == 403
        await place.bind("view", group("dev"))
        assert (await place.ask("one", "GET", PODS, headers=acting("alice", "dev"))).status_code == 200
        assert (await place.ask("one", "GET", PODS, headers=acting("alice"))).status_code == 403
        as_robot = await place.ask(
            "one", "POST", MYSELF, {}, headers=acting("system:serviceaccount:default:robot")
        )
        assert as_robot.json()["status"]["userInfo"]["groups"] == [
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated",
        ]

    tell(story)


def test_masters_whom_an_agent_acts_for_are_still_only_that_agent() -> None:
    async def story(place: Place) -> None:
        root = acting("operator", "system:masters")
        assert (await place.ask("one", "GET", PODS, headers=root)).status_code == 200
        node = {"metadata": {"name": "n"}}
        answer = await place.ask("one", "POST", "/api/v1/nodes", node, headers=root)
        assert answer.status_code == 403 and "leased" in answer.json()["message"]
        crd = {"metadata": {"name": "x.walras.dev"}, "spec": {"group": "walras.dev"}}
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        assert (await place.ask("one", "POST", path, crd, headers=root)).status_code in (403, 422)
        for cluster in ("two", "fleet", "*", "none"):
            answer = await place.ask("one", "GET", "/api/v1/secrets", cluster=cluster, headers=root)
            assert answer.status_code == 403, cluster

    tell(story)


def test_whom_the_operator_acts_for_is_not_the_operator() -> None:
    asked: list[Any] = []

    async def story(place: Place) -> None:
        async def extra(request: Any) -> dict[str, Any]:
            asked.append(request.identity)
            return {}

        place.app.extra = extra
        root = acting("anybody", "system:masters")
        for cluster in ("one", "fleet"):
            answer = await place.ask("operator", "GET", "/walras/v1/ledger", cluster=cluster, headers=root)
            assert answer.status_code == 200
        assert [identity.cluster for identity in asked] == ["one", "fleet"]
        assert all(identity.payer == ("", "operator") for identity in asked)
        answer = await place.ask("operator", "GET", "/api/v1/pods", cluster="*", headers=root)
        assert answer.status_code == 403

    tell(story)


def test_an_account_acts_only_for_those_that_a_rule_names() -> None:
    async def story(place: Place) -> None:
        token = await robot_token(place)
        answer = await place.ask(token, "GET", PODS, headers=acting("alice"))
        assert answer.status_code == 403 and answer.json()["message"] == (
            f'users "alice" is forbidden: User "{ROBOT}" cannot impersonate resource "users" in API group "" '
            "at the cluster scope"
        )
        await place.role(
            "actor", rule("impersonate", "users", "", "alice"), rule("impersonate", "groups", "", "dev")
        )
        await place.bind("actor", robot())
        await place.bind("view", user("alice"))
        assert (await place.ask(token, "GET", PODS, headers=acting("alice"))).status_code == 200
        assert (await place.ask(token, "GET", PODS, headers=acting("alice", "dev"))).status_code == 200
        for refused in (
            acting("bob"),
            acting("alice", "system:masters"),
            acting("alice", "dev", "system:masters"),
            acting("alice", team="a"),
            [*acting("alice"), ("Impersonate-Uid", "1")],
            acting("system:serviceaccount:kube-system:root"),
            acting("system:serviceaccount:default:robot"),
        ):
            assert (await place.ask(token, "GET", PODS, headers=refused)).status_code == 403, refused

    tell(story)


@pytest.mark.parametrize(
    "headers",
    [
        [("Impersonate-Group", "system:masters")],
        [("Impersonate-Uid", "1")],
        [("Impersonate-Extra-a", "b")],
        [("Impersonate-User", "")],
        [("Impersonate-User", "a"), ("Impersonate-User", "b")],
        [("Impersonate-User", "a"), ("Impersonate-Uid", "1"), ("Impersonate-Uid", "2")],
        [("Impersonate-User", "a"), ("Impersonate-Cluster", "two")],
        [("Impersonate-User", "a"), ("Impersonate-Extra-", "b")],
        [("Impersonate-User", "a"), *[("Impersonate-Group", f"g{number}") for number in range(250)]],
    ],
)
def test_headers_that_name_nobody_or_too_many_are_refused(headers: list[tuple[str, str]]) -> None:
    async def story(place: Place) -> None:
        assert (await place.ask("one", "GET", PODS, headers=headers)).status_code == 400

    tell(story)


def test_nobody_else_than_the_caller_pays_for_what_is_done_in_a_name() -> None:
    """Or an agent would get past its limits with a name for each request."""

    async def story(place: Place) -> None:
        seen = []

        async def extra(request: Any) -> dict[str, Any]:
            seen.append(request.identity.payer)
            return {}

        place.app.extra = extra
        token = await robot_token(place)
        await place.role("all", rule("*", "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]})
        await place.bind("all", robot())
        for who, headers in (("one", []), ("one", acting("x")), (token, []), (token, acting("y"))):
            masters = [*headers, ("Impersonate-Group", "system:masters")] if headers else []
            answer = await place.ask(who, "GET", "/walras/v1/prices", headers=masters)
            assert answer.status_code == 200, answer.text
        assert set(seen) == {("one", "")}

    tell(story)


def test_no_name_breaks_out_of_the_words_of_a_refusal() -> None:
    async def story(place: Place) -> None:
        answer = await place.ask("one", "GET", PODS, headers=acting('x" can do <b>all</b> & "'))
        assert answer.status_code == 403 and answer.json()["message"].startswith(
            r'pods is forbidden: User "x\" can do &lt;b&gt;all&lt;/b&gt; &amp; \"" cannot list resource'
        )

    tell(story)
