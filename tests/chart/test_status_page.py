"""The status page is one setting of the remediator: it opens no port and changes no right."""

from __future__ import annotations

import pytest

from selfheal_remediator.config import parse_config
from tests.chart.rendering import FIXED, Helm, by_kind, containers

ON = "remediator.config.statusPage.enabled=true"
NETWORK = "networkPolicy.enabled=true"
NAME = "selfheal-remediator"


def test_only_the_remediators_file_differs(helm: Helm) -> None:
    """And the checksum of that file, by which its pods are replaced."""
    off, on = (helm.template(*FIXED, NETWORK, *sets) for sets in ((), (ON,)))
    before, after = ({(m["kind"], m["metadata"]["name"]): m for m in each} for each in (off, on))
    assert before.keys() == after.keys()
    different = {key for key in before if before[key] != after[key]}
    assert different == {("ConfigMap", NAME), ("Deployment", NAME)}
    one, other = (by_kind(each, "Deployment")[NAME]["spec"]["template"] for each in (off, on))
    assert one["spec"] == other["spec"]
    assert one["metadata"]["labels"] == other["metadata"]["labels"]


def test_the_remediator_reads_it_and_without_it_the_file_does_not_name_it(helm: Helm) -> None:
    text = by_kind(helm.template(*FIXED, ON), "ConfigMap")[NAME]["data"]["remediator.yaml"]
    assert parse_config(text, "rendered").status_page.enabled
    text = by_kind(helm.template(*FIXED), "ConfigMap")[NAME]["data"]["remediator.yaml"]
    assert "statusPage" not in text


def test_nothing_leads_to_its_port_but_what_reads_the_metrics(helm: Helm) -> None:
    """No Service, no Ingress; with network policies the peers of networkPolicy.metricsFrom."""
    manifests = helm.template(*FIXED, NETWORK, ON)
    deployment = by_kind(manifests, "Deployment")[NAME]
    [container] = containers(deployment["spec"]["template"])
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for service in by_kind(manifests, "Service").values():
        assert not service["spec"]["selector"].items() <= labels.items()
    assert not by_kind(manifests, "Ingress")
    policy = by_kind(manifests, "NetworkPolicy")[NAME]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    [way] = policy["ingress"]
    assert way["from"]
    assert way["ports"] == [{"port": "http"}]
    nobody = helm.template(*FIXED, NETWORK, ON, values={"networkPolicy": {"metricsFrom": []}})
    assert not by_kind(nobody, "NetworkPolicy")[NAME]["spec"]["ingress"]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ({"enabled": "yes"}, "got string, want boolean"),
        ({"enabled": True, "port": 80}, "additional properties 'port' not allowed"),
        ({"enabled": None}, "missing property 'enabled'"),
        (True, "got boolean, want object"),
    ],
)
def test_other_values_are_refused(helm: Helm, page: object, complaint: str) -> None:
    message = helm.refusal(*FIXED, values={"remediator": {"config": {"statusPage": page}}})
    assert "statusPage" in message
    assert complaint in message


def test_the_notes_say_how_to_open_it(
    helm: Helm, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none")
    [line] = [one for one in helm.notes(ON).splitlines() if "/status" in one]
    assert "kubectl -n ns port-forward " in line
    assert " get lease feelings-selfheal-remediator " in line
    assert "/status" not in helm.notes()
