from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from walras.cli import kubeconfig
from walras.core.errors import BadRequest, NotFound

Object = dict[str, Any]

MINE = """\
apiVersion: v1
kind: Config
current-context: kind-dev
preferences: {colors: true}
extensions:
- name: minikube
  extension: {last-update: 2024-01-01, version: v1.30}
clusters:
- name: kind-dev
  cluster: {server: "https://127.0.0.1:1", insecure-skip-tls-verify: true}
users:
- name: kind-dev
  user: {token: 0123, exec: {command: login, args: [-v, "yes"]}}
contexts:
- name: kind-dev
  context: {cluster: kind-dev, user: kind-dev}
- name: other
  context: {cluster: kind-dev, user: kind-dev, namespace: x}
"""


def agent(name: str = "search") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://h:1/clusters/{name}"}}],
        "users": [{"name": name, "user": {"token": f"{name}-token"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    }


def mine() -> Object:
    return kubeconfig.parse(MINE, "test")


def test_connecting_makes_the_agents_context_current_and_keeps_all_else() -> None:
    config = kubeconfig.connected(mine(), "search", agent())
    assert config["current-context"] == "walras-search"
    assert config["preferences"] == {"colors": True}
    assert config["contexts"][:2] == mine()["contexts"]
    assert config["users"][-1] == {"name": "walras-search", "user": {"token": "search-token"}}
    found = kubeconfig.connection(config, Path("test"))
    assert (found.server, found.token) == ("https://h:1/clusters/search", "search-token")
    assert found.namespace == "default"


def test_disconnecting_gives_back_the_very_config_there_was_before() -> None:
    config, names = kubeconfig.disconnected(kubeconfig.connected(mine(), "search", agent()), "search")
    assert names == ["walras-search"]
    assert config == mine()


def test_connecting_twice_still_remembers_the_users_own_context() -> None:
    once = kubeconfig.connected(mine(), "search", agent())
    twice = kubeconfig.connected(once, "search", agent())
    assert twice == once
    assert kubeconfig.disconnected(twice, None)[0] == mine()


def test_disconnecting_the_last_agent_goes_back_to_the_one_before_it() -> None:
    both = kubeconfig.connected(kubeconfig.connected(mine(), "search", agent()), "train", agent("train"))
    config, _ = kubeconfig.disconnected(both, "train")
    assert config["current-context"] == "walras-search"
    assert kubeconfig.disconnected(config, "search")[0] == mine()


def test_disconnecting_an_earlier_agent_leaves_the_current_one_and_its_way_back() -> None:
    both = kubeconfig.connected(kubeconfig.connected(mine(), "search", agent()), "train", agent("train"))
    config, _ = kubeconfig.disconnected(both, "search")
    assert config["current-context"] == "walras-train"
    assert kubeconfig.disconnected(config, "train")[0] == mine()


def test_going_back_and_forth_between_two_agents_never_loses_the_way_back() -> None:
    config = mine()
    for name in ("search", "train", "search", "train", "search"):
        config = kubeconfig.connected(config, name, agent(name))
    config, names = kubeconfig.disconnected(config, None)
    assert sorted(names) == ["walras-search", "walras-train"]
    assert config == mine()


def test_a_context_chosen_by_hand_meanwhile_stays_chosen() -> None:
    config = kubeconfig.connected(mine(), "search", agent())
    config["current-context"] = "other"
    assert kubeconfig.disconnected(config, None)[0]["current-context"] == "other"


def test_a_former_context_that_is_gone_is_not_made_current() -> None:
    config = kubeconfig.connected(mine(), "search", agent())
    config["contexts"] = [entry for entry in config["contexts"] if entry["name"] != "kind-dev"]
    assert kubeconfig.disconnected(config, None)[0]["current-context"] == ""


def test_a_context_of_the_users_own_that_is_named_like_ours_is_not_taken_away() -> None:
    config = mine()
    config["contexts"].append({"name": "walras-mine", "context": {"cluster": "kind-dev", "user": "kind-dev"}})
    assert kubeconfig.disconnected(config, None) == (config, [])
    with pytest.raises(NotFound, match='not connected to "mine"'):
        kubeconfig.disconnected(config, "mine")


def test_disconnecting_from_an_unknown_agent_says_which_are_known() -> None:
    with pytest.raises(NotFound, match='not connected to "nobody"; connected to search'):
        kubeconfig.disconnected(kubeconfig.connected(mine(), "search", agent()), "nobody")


def test_an_empty_config_becomes_a_whole_one() -> None:
    config = kubeconfig.connected({}, "search", agent())
    assert (config["apiVersion"], config["kind"]) == ("v1", "Config")
    left = kubeconfig.disconnected(config, None)[0]
    assert left["current-context"] == "" and left["contexts"] == []


def test_scalars_survive_a_round_trip_as_kubectl_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfig.save(path, mine())
    assert kubeconfig.load(path) == mine()
    assert mine()["users"][0]["user"]["token"] == "0123"
    assert yaml.safe_load(path.read_text())["users"][0]["user"]["token"] == "0123"
    assert yaml.safe_load(path.read_text())["extensions"][0]["extension"]["last-update"] == "2024-01-01"


def test_a_file_is_written_for_its_owner_alone_through_links_and_leaves_nothing_beside(
    tmp_path: Path,
) -> None:
    real = tmp_path / "real" / "config"
    real.parent.mkdir()
    real.write_text(MINE)
    real.chmod(0o644)
    link = tmp_path / "config"
    link.symlink_to(real)
    kubeconfig.save(link, {"kind": "Config"})
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert kubeconfig.load(real) == {"kind": "Config"}
    assert [path.name for path in real.parent.iterdir()] == ["config"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.mkdir()
    with pytest.raises(OSError, match="config"):
        kubeconfig.write_private(path, b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["config"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "holds no mapping"),
        ("clusters: 3", "clusters is not a list"),
        ("users: [3]", "users is not a list of mappings"),
    ],
)
def test_what_is_no_kubeconfig_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=f"/my/config.*{message}"):
        kubeconfig.parse(text, "/my/config")


def test_an_absent_or_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    assert kubeconfig.load(tmp_path / "none") == {}
    assert kubeconfig.parse("", "x") == {}


def test_a_ca_and_a_token_may_be_inline_or_in_files_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    (tmp_path / "token").write_text("secret\n")
    config = agent()
    config["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt"
    config["users"][0]["user"] = {"tokenFile": "token"}
    found = kubeconfig.connection(config, tmp_path / "config")
    assert (found.ca_pem, found.token) == ("PEM", "secret")
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(b"INLINE").decode()
    assert kubeconfig.connection(config, tmp_path / "config").ca_pem == "INLINE"
    config["clusters"][0]["cluster"]["certificate-authority-data"] = "%%%"
    with pytest.raises(BadRequest, match="not base64"):
        kubeconfig.connection(config, tmp_path / "config")


def test_a_config_without_a_current_context_or_server_says_so() -> None:
    with pytest.raises(BadRequest, match="has no current context"):
        kubeconfig.connection({}, Path("f"))
    config = agent()
    config["clusters"] = []
    with pytest.raises(BadRequest, match="names no cluster with a server"):
        kubeconfig.connection(config, Path("f"))


def test_the_users_kubeconfig_is_the_first_that_kubectl_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", ":/one:/two")
    assert kubeconfig.user_path() == Path("/one")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", "/home/me")
    assert kubeconfig.user_path() == Path("/home/me/.kube/config")
