"""Rolling out Deployments for a drain: only with the value the remediator has the right to."""

from __future__ import annotations

from selfheal_remediator.config import parse_config
from selfheal_remediator.run import permissions
from tests.chart.rendering import Helm, Manifest, by_kind

ON = "remediator.config.drain.surge=true"
Grants = set[tuple[str, str, str]]


def _granted(manifests: list[Manifest]) -> Grants:
    """In the whole cluster: API group, resource, verb."""
    role = by_kind(manifests, "ClusterRole")["selfheal-remediator"]
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_value_grants_what_the_start_checks_and_nothing_else(helm: Helm) -> None:
    off, on = helm.template(), helm.template(ON)
    assert _granted(on) - _granted(off) == {("apps", "deployments", "patch")}
    alone = helm.template(ON, "remediator.config.policies.enabled=false")
    without = helm.template("remediator.config.policies.enabled=false")
    verbs = {("deployments", "get"), ("deployments", "patch"), ("replicasets", "get")}
    assert _granted(alone) - _granted(without) == {("apps", *one) for one in verbs}
    text = by_kind(alone, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    config = parse_config(text, "rendered")
    assert config.drain.surge
    checked = permissions(config, "selfheal", "selfheal-remediator")
    assert len(checked) == len(set(checked))
    wanted = {(item.group, item.resource, item.verb) for item in checked if not item.namespace}
    assert {("apps", *one) for one in verbs} <= wanted
    assert {one for one in wanted if one[0] == "apps"} <= _granted(alone)


def test_without_it_the_file_does_not_name_it(helm: Helm) -> None:
    """An upgrade of the chart alone restarts no remediator."""
    text = by_kind(helm.template(), "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    assert '"surge"' not in text
