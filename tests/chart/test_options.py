"""Options that users of other charts expect: each is in every pod that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.rendering import (
    FIXED,
    GROUPS,
    OPERATORS,
    Helm,
    Manifest,
    by_kind,
    containers_of,
    pod_specs,
)
from tests.chart.schemas import problems

BASE: Manifest = {
    "model": {"provider": "ollama", "name": "m"},
    "ollama": {"enabled": True, "models": ["m"]},
}
#: Component → what it is run by.
RUN_BY = {
    "worker": "Deployment/selfheal-worker",
    "rabbitmq": "StatefulSet/selfheal-rabbitmq",
    "ollama": "Deployment/selfheal-ollama",
    "remediator": "Deployment/selfheal-remediator",
    "nodeProblemDetector": "DaemonSet/selfheal-node-problem-detector",
}
#: Component → the other pods that run its program.
BESIDE = {
    "worker": {"Job/selfheal-topology", "Pod/selfheal-test-pipeline"},
    "remediator": {"Job/selfheal-remediator-uninstall", "Pod/selfheal-test-remediator"},
}
every_component = pytest.mark.parametrize("component", RUN_BY)


def _render(helm: Helm, **added: Any) -> list[Manifest]:
    values = dict(BASE)
    for key, more in added.items():
        old = values.get(key)
        values[key] = {**old, **more} if isinstance(old, dict) else more
    return helm.template(*FIXED, values=values)


def _name(owner: Manifest) -> str:
    """`Kind/name`, without the hash of a Job's name."""
    name = owner["metadata"]["name"]
    if owner["kind"] == "Job" and name.startswith("selfheal-topology"):
        name = "selfheal-topology"
    return f"{owner['kind']}/{name}"


def _specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {_name(owner): spec for owner, spec in pod_specs(manifests)}


def _objects(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {_name(manifest): manifest for manifest in manifests}


def _with(specs: dict[str, Manifest], key: str, value: Any) -> set[str]:
    return {name for name, spec in specs.items() if spec.get(key) == value}


@every_component
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dnsPolicy", "Default"),
        ("dnsConfig", {"options": [{"name": "ndots", "value": "2"}]}),
        ("hostAliases", [{"ip": "10.0.0.5", "hostnames": ["models.internal"]}]),
        ("runtimeClassName", "123"),
    ],
)
def test_a_pod_option_is_in_every_pod_of_the_component(
    helm: Helm, component: str, option: str, value: Any
) -> None:
    specs = _specs(_render(helm, **{component: {option: value}}))
    assert _with(specs, option, value) == {RUN_BY[component], *BESIDE.get(component, ())}


def test_a_detector_on_the_hosts_network_still_finds_the_cluster(helm: Helm) -> None:
    def policy(**values: Any) -> str:
        manifests = _render(helm, nodeProblemDetector={"hostNetwork": True, **values})
        found: str = _specs(manifests)[RUN_BY["nodeProblemDetector"]]["dnsPolicy"]
        return found

    assert policy() == "ClusterFirstWithHostNet"
    assert policy(dnsPolicy="Default") == "Default"


@every_component
def test_added_containers_are_there(helm: Helm, component: str, crds: tuple[Path, ...]) -> None:
    first = {"name": "first", "image": "i", "command": ["true"]}
    beside = {"name": "beside", "image": "i"}
    manifests = _render(
        helm, **{component: {"initContainers": [first], "extraContainers": [beside]}}
    )
    specs = _specs(manifests)
    tested = {"Pod/selfheal-test-pipeline"} if component == "worker" else set()
    before = {name for name, one in specs.items() if first in one.get("initContainers", [])[:1]}
    assert before == {RUN_BY[component], *tested}
    # A Job or a test would never end with it.
    with_it = {name for name, one in specs.items() if beside in one["containers"]}
    assert with_it == {RUN_BY[component]}
    assert [p for m in manifests for p in problems(m, "1.34", crds)] == []


def test_the_brokers_own_init_container_comes_after_the_added_ones(helm: Helm) -> None:
    first = {"name": "first", "image": "i"}
    broker = {"initContainers": [first], "auth": {"existingSecret": "s"}}
    manifests = helm.template(values={**BASE, "rabbitmq": broker})
    names = [one["name"] for one in _specs(manifests)[RUN_BY["rabbitmq"]]["initContainers"]]
    assert names == ["first", "definitions"]


@every_component
def test_the_environment_comes_from_config_maps_and_secrets(helm: Helm, component: str) -> None:
    source = [{"secretRef": {"name": "proxy"}}]
    specs = _specs(_render(helm, **{component: {"envFrom": source}}))
    found = {
        name
        for name, spec in specs.items()
        for one in containers_of(spec)
        if one.get("envFrom") == source
    }
    # The topology Job speaks with the broker alone.
    assert found == {RUN_BY[component], *BESIDE.get(component, ())} - {"Job/selfheal-topology"}


@every_component
def test_the_environment_is_added_to(helm: Helm, component: str) -> None:
    variable = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    specs = _specs(_render(helm, **{component: {"extraEnv": [variable]}}))
    found = {
        name
        for name, spec in specs.items()
        for one in containers_of(spec)
        if variable in one.get("env", [])
    }
    assert found == {RUN_BY[component], *BESIDE.get(component, ())} - {"Job/selfheal-topology"}
    twice = _refused(helm, **{component: {"extraEnv": [variable, variable]}})
    assert f"{component}.extraEnv sets HTTPS_PROXY, which is set already" in twice


@every_component
def test_volumes_are_added(helm: Helm, component: str) -> None:
    volume = {"name": "more", "configMap": {"name": "more"}}
    mount = {"name": "more", "mountPath": "/more"}
    specs = _specs(
        _render(helm, **{component: {"extraVolumes": [volume], "extraVolumeMounts": [mount]}})
    )
    found = {name for name, spec in specs.items() if volume in spec["volumes"]}
    mounted = {
        name
        for name, spec in specs.items()
        for one in containers_of(spec)
        if mount in one["volumeMounts"]
    }
    assert (
        found
        == mounted
        == {RUN_BY[component], *BESIDE.get(component, ())} - {"Job/selfheal-topology"}
    )


@every_component
def test_a_workload_takes_annotations_and_labels_and_its_pods_do_not(
    helm: Helm, component: str
) -> None:
    added = {
        "annotations": {"reloader.stakater.com/auto": "true"},
        "labels": {"team": "a", "app.kubernetes.io/component": "mine"},
    }
    manifests = _objects(_render(helm, **{component: added}))
    found = manifests[RUN_BY[component]]
    assert found["metadata"]["annotations"] == added["annotations"]
    assert found["metadata"]["labels"]["team"] == "a"
    assert found["metadata"]["labels"]["app.kubernetes.io/component"] != "mine"
    others = [m for name, m in manifests.items() if name != RUN_BY[component]]
    assert "team" not in {key for m in others for key in m["metadata"]["labels"]}
    plain = _objects(_render(helm))[RUN_BY[component]]
    assert found["spec"] == plain["spec"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"topology": ...}, "Job/selfheal-topology"),
        ({"remediator": {"uninstall": ...}}, "Job/selfheal-remediator-uninstall"),
    ],
)
def test_a_job_and_its_pods_take_annotations_and_labels(
    helm: Helm, values: Manifest, name: str
) -> None:
    added = {
        "annotations": {"helm.sh/hook": "test", "note": "1"},
        "labels": {"team": "a"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "podLabels": {"cost": "b", "app.kubernetes.io/component": "mine"},
    }
    ((key, inner),) = values.items()
    given = added if inner is ... else {"uninstall": added}
    job = _objects(_render(helm, **{key: given}))[name]
    assert job["metadata"]["annotations"]["note"] == "1"
    if key == "remediator":
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert job["metadata"]["labels"]["team"] == "a"
    pod = job["spec"]["template"]["metadata"]
    assert pod["annotations"] == added["podAnnotations"]
    assert pod["labels"]["cost"] == "b"
    assert pod["labels"]["app.kubernetes.io/component"] != "mine"


def test_the_pods_of_helm_test_take_annotations_and_labels(helm: Helm) -> None:
    added = {
        "podAnnotations": {"sidecar.istio.io/inject": "false", "helm.sh/hook": "none"},
        "podLabels": {"team": "a", "app.kubernetes.io/component": "mine"},
    }
    pods = by_kind(_render(helm, helmTest=added), "Pod")
    assert len(pods) == 2
    for pod in pods.values():
        assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
        assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert pod["metadata"]["labels"]["team"] == "a"
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "helm-test"


@every_component
def test_an_account_of_yours_is_used_and_none_is_made(helm: Helm, component: str) -> None:
    manifests = _render(helm, **{component: {"serviceAccount": {"create": False, "name": "123"}}})
    default = RUN_BY[component].partition("/")[2]
    assert default not in by_kind(manifests, "ServiceAccount")
    users = {RUN_BY[component], *BESIDE.get(component, ())}
    assert _with(_specs(manifests), "serviceAccountName", "123") == users
    assert _subjects(manifests) & {default, "123"} == (
        {"123"} if component in {"remediator", "nodeProblemDetector"} else set()
    )


@every_component
def test_an_account_is_made_under_a_name_of_yours(helm: Helm, component: str) -> None:
    account = {"name": "mine", "annotations": {"a": "b"}}
    manifests = _render(helm, **{component: {"serviceAccount": account}})
    made = by_kind(manifests, "ServiceAccount")
    assert made["mine"]["metadata"]["annotations"] == {"a": "b"}
    assert RUN_BY[component].partition("/")[2] not in made


def _subjects(manifests: list[Manifest]) -> set[str]:
    return {subject["name"] for m in manifests for subject in m.get("subjects", [])}


@pytest.mark.parametrize("component", ["worker", "rabbitmq", "ollama"])
def test_without_an_account_pods_have_the_namespaces_default(helm: Helm, component: str) -> None:
    specs = _specs(_render(helm, **{component: {"serviceAccount": {"create": False}}}))
    assert specs[RUN_BY[component]]["serviceAccountName"] == "default"


def _refused(helm: Helm, **added: Any) -> str:
    values = dict(BASE)
    for key, more in added.items():
        values[key] = {**values.get(key, {}), **more}
    return helm.refusal(values=values)


@pytest.mark.parametrize("component", ["remediator", "nodeProblemDetector"])
@pytest.mark.parametrize("name", ["", "default"])
def test_rights_on_nodes_never_go_to_the_default_account(
    helm: Helm, component: str, name: str
) -> None:
    account = {"create": False, "name": name}
    said = _refused(helm, **{component: {"serviceAccount": account}})
    assert f"Set {component}.serviceAccount.name" in said


def test_two_accounts_of_one_name_are_refused(helm: Helm) -> None:
    account = {"serviceAccount": {"name": "mine"}}
    assert "are both mine" in _refused(helm, worker=account, remediator=account)


@every_component
@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"dnsPolicy": "None"}, "dnsConfig.nameservers"),
        ({"dnsPolicy": "Sometimes"}, "dnsPolicy"),
        ({"serviceAccount": {"name": "Not A Name"}}, "serviceAccount/name"),
        ({"extraContainers": [{"image": "i"}]}, "without a name"),
        ({"initContainers": [{"name": "a"}], "extraContainers": [{"name": "a"}]}, "name a twice"),
        ({"annotations": {"a": 1}}, "annotations/a"),
        ({"hostAliases": ["10.0.0.5"]}, "hostAliases/0"),
    ],
)
def test_wrong_additions_are_refused(
    helm: Helm, component: str, added: Manifest, said: str
) -> None:
    assert said in _refused(helm, **{component: added})


@every_component
def test_a_name_that_the_chart_uses_is_refused(helm: Helm, component: str) -> None:
    """Kubernetes would refuse the pods, and Helm 4 the whole release, in words of their own."""
    owner = _objects(_render(helm))[RUN_BY[component]]
    spec = owner["spec"]["template"]["spec"]
    added = [
        *(("extraContainers", {"name": c["name"], "image": "i"}) for c in containers_of(spec)),
        *(("initContainers", {"name": c["name"], "image": "i"}) for c in containers_of(spec)),
        *(("extraVolumes", {"name": v["name"], "emptyDir": {}}) for v in spec["volumes"]),
        *(
            ("extraVolumes", {"name": claim["metadata"]["name"], "emptyDir": {}})
            for claim in owner["spec"].get("volumeClaimTemplates", [])
        ),
        *(
            ("extraVolumeMounts", {"name": "x", "mountPath": mount["mountPath"]})
            for mount in spec["containers"][0]["volumeMounts"]
        ),
    ]
    for option, item in added:
        said = _refused(helm, **{component: {option: [item]}})
        assert f"{component}.{option} " in said, (option, item)
        assert f" {item.get('mountPath', item['name'])}, " in said, (option, item)


def test_an_init_container_of_workers_is_not_called_as_one_of_helm_test(helm: Helm) -> None:
    test = {"name": "test", "image": "i"}
    assert "the name test" in _refused(helm, worker={"initContainers": [test]})


@every_component
@pytest.mark.parametrize(
    ("option", "item", "said"),
    [
        ("extraVolumes", {"name": "v", "emptyDir": {}}, "the name v"),
        ("extraVolumeMounts", {"name": "v", "mountPath": "/v"}, "the mountPath /v"),
        ("hostAliases", {"ip": "fd00::1", "hostnames": ["h"]}, "has fd00::1 twice"),
    ],
)
def test_an_entry_that_is_there_twice_is_refused(
    helm: Helm, component: str, option: str, item: Manifest, said: str
) -> None:
    assert f"{component}.{option} has " in _refused(helm, **{component: {option: [item, item]}})
    assert said in _refused(helm, **{component: {option: [item, item]}})


def test_what_the_chart_uses_elsewhere_is_free(helm: Helm) -> None:
    """`ca` and `task` are volumes only beside the values that need them."""
    volumes = [{"name": "ca", "emptyDir": {}}, {"name": "task", "emptyDir": {}}]
    spec = _specs(_render(helm, worker={"extraVolumes": volumes}))["Deployment/selfheal-worker"]
    assert [volume for volume in spec["volumes"] if volume in volumes] == volumes


@every_component
def test_an_annotation_of_the_chart_is_there_once(helm: Helm, component: str) -> None:
    """A pod's checksum of what it reads at its start; its value is the chart's."""

    def annotations(**added: Any) -> Manifest:
        owner = _objects(_render(helm, task="name: mine", **added))[RUN_BY[component]]
        return dict(owner["spec"]["template"]["metadata"].get("annotations", {}))

    own = annotations()
    assert own or component == "ollama"
    added = {**dict.fromkeys(own, "mine"), "more": "x"}
    assert annotations(**{component: {"podAnnotations": added}}) == {**own, "more": "x"}


def test_objects_of_yours_are_templates(helm: Helm) -> None:
    objects = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "{{ .Release.Name }}-more"},
            "data": {"number": "123"},
        },
        'apiVersion: v1\nkind: Secret\nmetadata: {name: {{ include "selfheal.fullname" . }}-s}',
    ]
    manifests = _render(helm, extraObjects=objects)
    assert by_kind(manifests, "ConfigMap")["selfheal-more"]["data"] == {"number": "123"}
    assert "selfheal-s" in by_kind(manifests, "Secret")
    assert len(manifests) == len(_render(helm)) + 2


def test_a_pod_monitor_is_made_as_values_say(helm: Helm, crds: tuple[Path, ...]) -> None:
    scrape = {
        "interval": "30s",
        "scrapeTimeout": "9s",
        "relabelings": [{"action": "replace", "targetLabel": "cluster", "replacement": "a"}],
        "metricRelabelings": [{"action": "labeldrop", "regex": "build"}],
    }
    monitor_values = {
        "enabled": True,
        "annotations": {"a": "b"},
        "labels": {"release": "p"},
        **scrape,
    }
    flags = GROUPS[OPERATORS]
    manifests = helm.template(
        *FIXED, values={"metrics": {"podMonitor": monitor_values}}, flags=flags
    )
    monitors = by_kind(manifests, "PodMonitor")
    assert len(monitors) == 4
    for monitor in monitors.values():
        assert monitor["metadata"]["annotations"] == {"a": "b"}
        assert monitor["metadata"]["labels"]["release"] == "p"
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint | scrape == endpoint
        assert problems(monitor, "1.34", crds) == []
    plain = helm.template(*FIXED, "metrics.podMonitor.enabled=true", flags=flags)
    for monitor in by_kind(plain, "PodMonitor").values():
        assert "annotations" not in monitor["metadata"]
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint.keys() <= {"port", "path", "interval", "params"}
    late = {"podMonitor": {"enabled": True, "interval": "15s", "scrapeTimeout": "1m"}}
    assert "scrapeTimeout (1m) is longer than" in helm.refusal(values={"metrics": late})


def test_rules_are_made_by_either_name(helm: Helm) -> None:
    def rule(values: Manifest) -> Manifest:
        manifests = helm.template(*FIXED, values=values, flags=GROUPS[OPERATORS])
        (found,) = by_kind(manifests, "PrometheusRule").values()
        return found

    conventional = {"enabled": True, "labels": {"release": "p"}, "annotations": {"a": "b"}}
    metrics = {"podMonitor": {"enabled": True}, "prometheusRule": conventional}
    found = rule({"metrics": metrics})
    alerts = {"enabled": True, "labels": {"release": "p"}}
    other = rule({"metrics": {"podMonitor": {"enabled": True}}, "alerts": alerts})
    assert found["metadata"].pop("annotations") == {"a": "b"}
    assert found == other
    metrics["prometheusRule"] = {"enabled": True, "namespace": "monitoring"}
    assert rule({"metrics": metrics})["metadata"]["namespace"] == "monitoring"


def test_dashboards_for_the_grafana_operator(helm: Helm) -> None:
    operator = {"enabled": True, "folder": "0123", "resyncPeriod": "10m"}
    manifests = helm.template(*FIXED, values={"dashboards": {"grafanaOperator": operator}})
    texts = by_kind(manifests, "ConfigMap")
    made = by_kind(manifests, "GrafanaDashboard")
    assert len(made) == 4
    for one in made.values():
        assert one["apiVersion"] == "grafana.integreatly.org/v1beta1"
        spec = one["spec"]
        reference = spec["configMapRef"]
        assert reference["key"] in texts[reference["name"]]["data"]
        assert spec == {
            "instanceSelector": {"matchLabels": {"dashboards": "grafana"}},
            "allowCrossNamespaceImport": True,
            "folder": "0123",
            "resyncPeriod": "10m",
            "configMapRef": reference,
        }
    assert not by_kind(helm.template(*FIXED), "GrafanaDashboard")
    off = {"enabled": False, "grafanaOperator": {"enabled": True}}
    assert "set dashboards.enabled=true" in helm.refusal(values={"dashboards": off})
    nobody = {"grafanaOperator": {"enabled": True, "instanceSelector": {"matchLabels": None}}}
    assert "selects nothing" in helm.refusal(values={"dashboards": nobody})
