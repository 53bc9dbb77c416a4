"""What the writer of a valid object is warned of, in the words of the real kube-apiserver."""

from itertools import product
from typing import Any

import pytest

from walras.kube import advice
from walras.kube.registry_builtin import for_agents

Object = dict[str, Any]
REGISTRY = for_agents()


def told(key: str, body: Object, old: Object | None = None, name: str = "a") -> list[str]:
    def whole(given: Object) -> Object:
        return {**given, "metadata": {"name": name, **given.get("metadata", {})}}

    return advice.warnings(REGISTRY[key], whole(body), None if old is None else whole(old), "")


def pod(*containers: Object, **spec: Any) -> Object:
    return {"spec": {"containers": [{"name": "c", **each} for each in containers or ({},)], **spec}}


NULL = "a null labelSelector results in matching no pod"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pod(nodeSelector={"beta.kubernetes.io/os": "linux"}),
         'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'),
        (pod(topologySpreadConstraints=[{"topologyKey": "z"}]),
         f"spec.topologySpreadConstraints[0].labelSelector: {NULL}"),
        (pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}),
         "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: "
         f"{NULL}"),
        (pod(imagePullSecrets=[{"name": "x"}, {"name": "x"}]),
         'spec.imagePullSecrets[1].name: duplicate name "x"'),
        (pod({"resources": {"limits": {"memory": "100m"}}}),
         'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, '
         "must be an integer"),
        (pod({"env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]}),
         'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when '
         'using apply'),
        (pod({"ports": [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 1, "protocol": "TCP"}]}),
         "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"),
        (pod({"ports": [{"containerPort": 1, "name": "w"}, {"containerPort": 2, "name": "w"}]}),
         'spec.containers[0].ports[1]: duplicate port name "w" with spec.containers[0].ports[0], '
         'services and '
         "probes that select ports by name will use spec.containers[0].ports[0]"),
        (pod(terminationGracePeriodSeconds=-1),
         "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will "
         "be treated as 1"),
        (pod(dnsConfig={"nameservers": ["FD00::1"]}),
         'spec.dnsConfig.nameservers[0]: IPv6 address "FD00::1" should be in RFC 5952 canonical format '
         '("fd00::1")'),
        (pod(volumes=[{"name": "v", "configMap": {"name": "m", "items": [{"path": "p"}, {"path": "p/q"}]}}]),
         'volume "v" (ConfigMap "m"): overlapping paths: "p/q" with "p"'),
        (pod(volumes=[{"name": "v", "cephfs": {}}]),
         "spec.volumes[0].cephfs: deprecated in v1.28, non-functional in v1.31+"),
    ],
)  # fmt: skip
def test_pods(body: Object, expected: str) -> None:
    assert told("pods", body) == [expected]


def test_what_refers_to_what_it_replaces_hides_nothing() -> None:
    twice = [{"name": "A", "value": "x"}, {"name": "A", "value": "$(A):y"}]
    assert told("pods", pod({"env": twice})) == []


def test_pods_are_told_when_they_are_made_and_workloads_when_their_template_may_have_changed() -> None:
    bad = pod(terminationGracePeriodSeconds=-1)
    assert told("pods", bad, bad) == []
    one = {"spec": {"replicas": 1, "template": bad}}
    assert len(told("deployments.apps", one)) == 1
    assert told("deployments.apps", one, one) == []
    (said,) = told("deployments.apps", {"spec": {**one["spec"], "replicas": 2}}, one)
    assert said.startswith("spec.template.spec.terminationGracePeriodSeconds")


def test_names_that_become_hostnames_should_be_labels() -> None:
    (said,) = told("jobs.batch", {"spec": {"template": pod()}}, name="a.b")
    assert said.startswith("metadata.name: this is used in Pod names and hostnames")
    assert told("daemonsets.apps", {"spec": {"template": pod()}}, name="a.b") == []


@pytest.mark.parametrize(
    ("key", "body", "expected"),
    [
        ("services", {"spec": {"type": "ClusterIP", "externalName": "x"}},
         'spec.externalName is ignored when spec.type is not "ExternalName"'),
        ("services", {"spec": {"trafficDistribution": "PreferClose"}},
         'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'),
        ("persistentvolumes", {"spec": {"persistentVolumeReclaimPolicy": "Recycle"}},
         "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, "
         "the recommended "
         "approach is to use dynamic provisioning."),
        ("resourcequotas", {"spec": {"hard": {"cpu": "2", "limits.cpu": "1"}}},
         "ResourceQuota cpu (2) should be less than limits.cpu (1)"),
        ("networkpolicies.networking.k8s.io",
         {"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "FD00::/16"}}]}]}},
         'spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value "FD00::/16" should be in RFC 5952 '
         'canonical format '
         '("fd00::/16")'),
        ("endpointslices.discovery.k8s.io", {"addressType": "FQDN"},
         "spec.addressType: FQDN endpoints are deprecated"),
        ("validatingwebhookconfigurations.admissionregistration.k8s.io",
         {"metadata": {"name": "a.static.k8s.io"}},
         'metadata.name: names ending with ".static.k8s.io" are reserved for static manifest-based '
         "configurations and cannot be managed via the API"),
    ],
)  # fmt: skip
def test_other_types(key: str, body: Object, expected: str) -> None:
    assert told(key, body) == [expected]


def test_paths_of_files_overlap_where_one_is_or_holds_the_other() -> None:
    paths = ["/".join(parts) for length in (1, 2, 3) for parts in product("ab", repeat=length)]
    for three in product(paths, repeat=3):
        files = {"name": "m", "items": [{"key": "k", "path": each} for each in three]}
        expected = [
            f'volume "v" (ConfigMap "m"): overlapping paths: "{later}" with "{earlier}"'
            for index, later in enumerate(three)
            for earlier in three[:index]
            if f"{later}/".startswith(f"{earlier}/") or f"{earlier}/".startswith(f"{later}/")
        ]
        assert told("pods", pod(volumes=[{"name": "v", "configMap": files}])) == expected
