"""What a user reads after the install: short, true, and with this release's names in it."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart.rendering import CASES, CHART, Helm

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"]


@pytest.fixture
def notes(helm: Helm, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Helm:
    """A Helm that sees no cluster, whatever the machine has."""
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none")
    return helm


@pytest.mark.parametrize("case", CASES)
def test_is_short_and_names_the_release(notes: Helm, case: str) -> None:
    text = notes.notes(files=CASES[case])
    assert text.startswith(f"selfheal {VERSION} is installed as feelings in ns.")
    assert len(text.splitlines()) <= 32
    assert "<no value>" not in text
    assert "%!" not in text
    for line in text.splitlines():
        if "kubectl" in line:
            assert "kubectl -n ns " in line


def test_names_objects_that_exist(notes: Helm) -> None:
    text = notes.notes()
    made = notes.template(release="feelings")
    names = {m["metadata"]["name"] for m in made}
    for named in re.findall(r"(?:service|secret|scaledobject|deploy)[/ ](feelings[a-z-]*)", text):
        assert named in names


def test_says_what_is_only_for_evaluation_and_what_is_missing(notes: Helm) -> None:
    text = notes.notes()
    assert "single node for evaluation" in text
    assert "worker.image.repository is selfheal-worker, which is on no public registry" in text
    text = notes.notes("worker.image.repository=registry.example.com/selfheal-worker")
    assert "worker.image.repository is" not in text
    assert "lost when its pod moves" in notes.notes("rabbitmq.persistence.enabled=false")


def test_the_reader_of_the_first_answer_waits_for_a_worker_from_zero(notes: Helm) -> None:
    [command] = re.findall(r"selfheal-worker results .*", notes.notes())
    assert command == "selfheal-worker results --expect 1 --timeout 120"


def test_says_what_to_do_before_an_uninstall(notes: Helm) -> None:
    """Nothing, where the uninstall uncordons the nodes itself."""
    assert "uninstall" not in notes.notes()
    text = notes.notes("remediator.uninstall.uncordon=false")
    [line] = [one for one in text.splitlines() if "uninstall" in one]
    assert line.startswith("Before an uninstall uncordon the nodes that it cordoned")
    assert " exec deploy/feelings-selfheal-remediator -- " in line
    assert line.endswith(" selfheal-remediator uncordon --all")
    off = ("remediator.enabled=false", "remediator.uninstall.uncordon=false")
    assert "uninstall" not in notes.notes(*off)


def test_says_that_faults_are_on(notes: Helm) -> None:
    assert "faults.modelDelay adds 0.5 s" in notes.notes("faults.modelDelay=0.5")
    assert "while /tmp/hang exists" in notes.notes("faults.modelHangFile=/tmp/hang")
    assert "faults" not in notes.notes()


@pytest.mark.parametrize("given", ["imagePullSecrets[0].name", "global.imagePullSecrets[0]"])
def test_says_that_the_detector_needs_the_pull_secret_in_its_own_namespace(
    notes: Helm, given: str
) -> None:
    """Pods there never start without; nothing else in the release shows it."""
    there = "-n feelings-selfheal-node-problem-detector create secret docker-registry regcred"
    secret = f"{given}=regcred"
    assert there in notes.notes(secret)
    assert "create secret" not in notes.notes()
    assert "create secret" not in notes.notes(secret, "nodeProblemDetector.enabled=false")
    assert "create secret" not in notes.notes(secret, "nodeProblemDetector.namespace=ns")


@pytest.mark.parametrize("case", ["production", "air-gapped"])
def test_an_example_with_a_private_registry_says_so_before_the_install(
    notes: Helm, case: str
) -> None:
    [path] = CASES[case]
    [namespace] = {m["metadata"]["name"] for m in notes.case(case) if m["kind"] == "Namespace"}
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    for text in (path.read_text(encoding="utf-8"), readme):
        assert f"kubectl create namespace {namespace}" in text
        assert f"{namespace} pod-security.kubernetes.io/enforce=privileged" in text
        assert "nodeProblemDetector.createNamespace=false" in text
    without = notes.case(case, "nodeProblemDetector.createNamespace=false")
    assert "Namespace" not in {m["kind"] for m in without}


@pytest.mark.parametrize("case", CASES)
def test_the_first_command_needs_nothing_but_helm_and_kubectl(notes: Helm, case: str) -> None:
    """Who installs by Helm has no program of ours on the machine."""
    text = notes.notes(files=CASES[case])
    commands = re.findall(
        r"(?:^|  )((?:helm|kubectl|selfheal-\w+|export|echo|curl) .*)", text, re.M
    )
    assert commands[0].startswith(("helm ", "kubectl ")), commands
    assert "| selfheal-" not in commands[0]
    if "Workers read the queue" in text:
        assert commands[0] == "helm test feelings -n ns"


def test_the_password_is_read_from_the_secret_that_has_it(notes: Helm) -> None:
    text = notes.notes()
    assert "get secret feelings-selfheal-rabbitmq -o go-template=" in text
    assert '{{ index .data "password" | base64decode }}' in text
    mine = notes.notes("rabbitmq.auth.existingSecret=mine", "rabbitmq.auth.secretKeys.password=a.b")
    assert """get secret mine -o go-template='{{ index .data "a.b" | base64decode }}'""" in mine


def test_says_what_a_lower_version_of_keda_costs(notes: Helm) -> None:
    text = notes.notes()
    for version in ("2.17", "2.19", "2.20"):
        assert f"below {version}" in text
    assert "below 2." not in notes.notes("autoscaling.mode=none")
