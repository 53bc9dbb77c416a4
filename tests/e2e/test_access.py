"""Access control with kubectl as it is: roles, tokens, acting for others, asking what one may do."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
Server = Any  # the fixture's ApiServer


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """Its output, when it went well."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What it complained of, when it did."""
    assert done.returncode != 0, f"{done.args} was not refused:\n{done.stdout}"
    return done.stderr


def test_a_token_on_request_does_what_a_role_lets_it_and_no_more(apiserver: Server) -> None:
    kubectl = apiserver.kubectl
    ok(kubectl("create", "serviceaccount", "reader"))
    token = ok(kubectl("create", "token", "reader", "--duration=20m")).strip()
    whoami = ok(kubectl("--token", token, "auth", "whoami", "-o", "json"))
    assert json.loads(whoami)["status"]["userInfo"]["username"] == "system:serviceaccount:default:reader"
    said = refused(kubectl("--token", token, "get", "configmaps"))
    assert 'User "system:serviceaccount:default:reader" cannot list resource "configmaps"' in said
    ok(kubectl("create", "role", "maps", "--verb=get,list", "--resource=configmaps"))
    ok(kubectl("create", "rolebinding", "maps", "--role=maps", "--serviceaccount=default:reader"))
    ok(kubectl("--token", token, "get", "configmaps"))
    assert "cannot create" in refused(kubectl("--token", token, "create", "configmap", "x"))
    assert "cannot list" in refused(kubectl("--token", token, "get", "configmaps", "-n", "kube-system"))
    assert ok(kubectl("--token", token, "auth", "can-i", "list", "configmaps")).strip() == "yes"
    assert kubectl("--token", token, "auth", "can-i", "delete", "configmaps").stdout.strip() == "no"
    assert "configmaps" in ok(kubectl("--token", token, "auth", "can-i", "--list"))
    elsewhere = kubectl("--token", token, "get", "configmaps", cluster="two", token="two")
    assert "Forbidden" in refused(elsewhere)
    ok(kubectl("delete", "serviceaccount", "reader"))
    assert "must be logged in" in refused(kubectl("--token", token, "get", "configmaps"))


def test_acting_for_somebody_is_what_kubectl_as_does(apiserver: Server) -> None:
    kubectl = apiserver.kubectl
    assert 'User "alice" cannot list resource "secrets"' in refused(kubectl("get", "secrets", "--as=alice"))
    ok(kubectl("create", "clusterrolebinding", "dev-view", "--clusterrole=view", "--group=dev"))
    ok(kubectl("get", "configmaps", "--as=alice", "--as-group=dev"))
    assert "cannot list" in refused(kubectl("get", "secrets", "--as=alice", "--as-group=dev"))
    assert "Forbidden" in refused(
        kubectl("get", "pods", "--as=bob", "--as-group=system:masters", cluster="two", token="one")
    )


def test_default_roles_are_there_and_can_be_reconciled(apiserver: Server) -> None:
    kubectl = apiserver.kubectl
    names = ok(kubectl("get", "clusterroles", "-o", "name"))
    assert "clusterrole.rbac.authorization.k8s.io/cluster-admin" in names
    assert "Resources" in ok(kubectl("describe", "clusterrole", "view"))
    manifest = ok(kubectl("get", "clusterrole", "view", "-o", "yaml"))
    ok(kubectl("auth", "reconcile", "-f", "-", stdin=manifest))
    ok(kubectl("label", "clusterrole", "view", "mine=yes"))
    assert (
        json.loads(ok(kubectl("get", "clusterrole", "view", "-o", "json")))["metadata"]["labels"]["mine"]
        == "yes"
    )
    ok(kubectl("delete", "clusterrole", "view"))
    again = json.loads(ok(kubectl("get", "clusterrole", "view", "-o", "json")))
    assert "mine" not in again["metadata"]["labels"] and again["rules"]
