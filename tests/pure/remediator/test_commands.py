"""The commands for people: of whom they speak, and with which status they end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfheal_remediator.__main__ import main
from selfheal_remediator.cli.commands import uncordon_patch
from selfheal_remediator.kube.lease import LABEL, PAUSE_KEY, STOP_KEY, TRUST_KEY, stopped_until
from selfheal_remediator.kube.objects import DRAIN_KEY
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STATE_KEY, Phase, State, parse_state
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED, UNTIL_KEY
from tests.pure.remediator import json_patch
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, node, stamp

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}"
FIRST = LEASES.format("one", "selfheal-remediator")
SECOND = LEASES.format("two", "other-remediator")


class Cluster(FakeApi):
    """Forbids what it is set to."""

    def __init__(self) -> None:
        self.forbidden = False
        super().__init__(lambda *_: "403" if self.forbidden else "")

    def lease(self, path: str) -> None:
        """A remediator's."""
        *_, namespace, _, name = path.split("/")
        meta = {"name": name, "namespace": namespace, "labels": {LABEL: "true"}, "annotations": {}}
        self.put(path, {"metadata": meta, "spec": {}})

    def uncordon_by_hand(self, path: str, conditions: str) -> None:
        """A human says that they are true."""
        raw = self.get(path)
        raw["metadata"]["annotations"][TRUST_KEY] = conditions
        self.put(path, raw)

    def paused(self, path: str) -> str | None:
        """By its Lease."""
        found: str | None = self.get(path)["metadata"]["annotations"].get(PAUSE_KEY)
        return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    made.lease(FIRST)
    yield made
    made.close()


@pytest.fixture
def access(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options with which a laptop reaches it."""
    monkeypatch.delenv("CONFIG_FILE", raising=False)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    monkeypatch.setattr("selfheal_remediator.cli.uninstall.PAUSE", 0.01)
    config: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return ["--kubeconfig", str(path)]


def test_the_only_remediator_is_meant(cluster: Cluster, access: list[str]) -> None:
    assert main(["pause", "--why", "upgrade", *access]) == 0
    assert cluster.paused(FIRST) == "upgrade"
    assert main(["resume", *access]) == 0
    assert cluster.paused(FIRST) is None


def test_of_several_none_is_guessed(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where one has the name that is the default."""
    cluster.lease(SECOND)
    assert main(["pause", "--why", "upgrade", *access]) == 2
    said = capsys.readouterr().err
    assert "one/selfheal-remediator, two/other-remediator; choose with" in said
    assert [cluster.paused(one) for one in (FIRST, SECOND)] == [None, None]
    assert main(["pause", "--why", "upgrade", "--lease", "other-remediator", *access]) == 0
    assert [cluster.paused(one) for one in (FIRST, SECOND)] == [None, "upgrade"]


def test_a_configuration_says_which_one_is_meant(
    cluster: Cluster, access: list[str], tmp_path: Path
) -> None:
    cluster.lease(SECOND)
    config = tmp_path / "remediator.yaml"
    config.write_text("lease: {name: other-remediator}")
    assert main(["pause", "--why", "upgrade", "--config", str(config), *access]) == 0
    assert [cluster.paused(one) for one in (FIRST, SECOND)] == [None, "upgrade"]


def test_the_status_names_what_a_human_uncordoned(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", *access]) == 0
    assert "trusted" not in capsys.readouterr().out
    cluster.uncordon_by_hand(FIRST, "KernelDeadlock, Fault")
    assert main(["status", *access]) == 0
    assert "trusted by a person: Fault, KernelDeadlock" in capsys.readouterr().out


def test_a_plan_trusts_what_a_human_uncordoned(
    cluster: Cluster, access: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        raw = node(f"n{number}", "True")
        raw["status"]["conditions"][1]["lastTransitionTime"] = stamp(1)
        cluster.put(f"{NODES}/n{number}", raw)
    config = tmp_path / "remediator.yaml"
    config.write_text("rules: [{condition: Fault, for: 0s, action: cordon}]")
    asked = ["plan", "-o", "json", "--config", str(config), *access]

    def rejected() -> bool:
        assert main(asked) == 0
        return "suspected" in capsys.readouterr().out

    assert rejected()
    cluster.uncordon_by_hand(FIRST, "Fault")
    assert not rejected()


def test_a_missing_permission_has_a_status_of_its_own(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbidden = True
    assert main(["exclude", "n", "--why", "mine", *access]) == 3
    assert "403" in capsys.readouterr().err


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("by", ["one/selfheal-remediator", "gone/renamed"])
def test_release_clears_any_phase_of_any_remediator(phase: Phase, there: bool, by: str) -> None:
    state = State(phase, by, condition="Fault", cordons=(5,))
    meta = {"name": "n", "uid": "u", "resourceVersion": "1"}
    raw = {
        "metadata": {**meta, "annotations": {STATE_KEY: state.to_json()}},
        "spec": {"unschedulable": True},
    }
    owner = "one/selfheal-remediator" if there else None
    ops, before = uncordon_patch("n", raw, owner, 100.0)
    after = json_patch.apply(raw, ops)
    assert before is phase.cordoned
    assert bool(after["spec"].get("unschedulable")) is not phase.cordoned
    left = after["metadata"]["annotations"].get(STATE_KEY)
    assert (left is not None) is (phase.cordoned and there)
    if left is not None:
        written = parse_state(left)
        assert (written.phase, written.by, written.since) == (Phase.CANCELLED, owner, 100)


def _carries(name: str, state: State, *, cordoned: bool) -> dict[str, Any]:
    raw = node(name, "True", **({"unschedulable": True} if cordoned else {}))
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    return raw


@pytest.mark.parametrize("output", ["table", "json"])
def test_before_an_uninstall_all_that_it_cordoned_is_uncordoned(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str], output: str
) -> None:
    ours, others = "one/selfheal-remediator", "two/other-remediator"
    for phase in Phase:
        name = phase.value
        raw = _carries(name, State(phase, ours), cordoned=phase.cordoned)
        raw["metadata"]["annotations"] |= {DRAIN_KEY: "why", UNTIL_KEY: "2030-01-01T00:00:00Z"}
        cluster.put(f"{NODES}/{name}", raw)
    theirs = _carries("theirs", State(Phase.CORDONED, others), cordoned=True)
    cluster.put(f"{NODES}/theirs", theirs)
    cluster.put(f"{NODES}/humans", node("humans", "True", unschedulable=True))
    arguments = ["uncordon", "--all", "--timeout", "30", "-n", "one", "-o", output, *access]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    for phase in Phase:
        raw = cluster.get(f"{NODES}/{phase.value}")
        assert not {STATE_KEY, DRAIN_KEY, UNTIL_KEY} & raw["metadata"]["annotations"].keys()
        assert not raw["spec"].get("unschedulable")
    for name in ("theirs", "humans"):
        assert cluster.get(f"{NODES}/{name}")["spec"]["unschedulable"]
    if output == "json":
        cordoned = sorted(phase.value for phase in Phase if phase.cordoned)
        assert sorted(json.loads(said)["uncordoned"]) == cordoned
    stopped = stopped_until(cluster.get(FIRST)["metadata"]["annotations"])
    assert 0 < stopped - time.time() <= 61


def test_plan_and_status_show_groups(
    cluster: Cluster, access: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = node("n", "True")
    raw["metadata"]["labels"] = {"pool": "gpu"}
    cluster.put(f"{NODES}/n", raw)
    path = tmp_path / "remediator.yaml"
    groups = """
rules: [{condition: Fault, for: 0s, action: drain, heartbeat: null}]
limits: {maxUnavailable: 100%}
groups:
  - name: gpu
    nodeSelector: {matchLabels: {pool: gpu}}
    maintenanceWindows: [{start: 00:00, duration: 7d}]
  - {name: big, nodeSelector: {matchLabels: {pool: gpu, size: l}}, mode: observe}
"""
    path.write_text(groups)
    assert main(["plan", "--config", str(path), *access]) == 0
    said = capsys.readouterr().out
    assert "note: group big gets no node" in said
    assert "gpu (enforces, window open)" in said
    assert main(["plan", "-o", "json", "--config", str(path), *access]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["group"].startswith("gpu ")
    assert main(["status", "--config", str(path), *access]) == 0
    assert "group big: only observes" in capsys.readouterr().out


def test_a_drain_is_requested_and_uncordon_withdraws_it(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.put(f"{NODES}/n", node("n", "False"))
    assert main(["drain", "n", "--why", "new disk", "--until", "4h", *access]) == 0
    assert "n: drain requested until 20" in capsys.readouterr().out
    annotations = cluster.get(f"{NODES}/n")["metadata"]["annotations"]
    assert annotations[DRAIN_KEY].startswith("new disk (20")
    assert UNTIL_KEY in annotations
    assert main(["status", *access]) == 0
    assert "n: drain requested: new disk" in capsys.readouterr().out
    assert main(["plan", *access]) == 0
    assert "drain requested: new disk" in capsys.readouterr().out
    assert main(["drain", "n", "--why", "new disk", *access]) == 0
    assert UNTIL_KEY not in cluster.get(f"{NODES}/n")["metadata"]["annotations"]
    assert main(["uncordon", "n", *access]) == 0
    assert "the request of a drain is withdrawn" in capsys.readouterr().out
    assert DRAIN_KEY not in cluster.get(f"{NODES}/n")["metadata"]["annotations"]


def test_a_drain_on_a_node_of_a_group_that_only_observes_is_refused(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster.put(f"{NODES}/n", node("n", "False"))
    path = tmp_path / "remediator.yaml"
    path.write_text("groups: [{name: all, nodeSelector: {}, mode: observe}]")
    assert main(["drain", "n", "--why", "new disk", "--config", str(path), *access]) == 1
    said = capsys.readouterr().err
    assert "n would not be drained: its group all only observes (mode: observe)" in said
    assert DRAIN_KEY not in cluster.get(f"{NODES}/n")["metadata"]["annotations"]


def test_a_drain_is_requested_again_only_once_the_one_that_a_person_ended_is_withdrawn(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = node("n", "False")
    state = State(
        Phase.CANCELLED, "one/selfheal-remediator", DRAIN_REQUESTED, "True", since=int(time.time())
    )
    raw["metadata"]["annotations"] = {DRAIN_KEY: "new disk", STATE_KEY: state.to_json()}
    cluster.put(f"{NODES}/n", raw)
    assert main(["drain", "n", "--why", "new disk", *access]) == 1
    assert "`uncordon n` withdraws that" in capsys.readouterr().err
    assert main(["uncordon", "n", *access]) == 0
    assert main(["drain", "n", "--why", "new disk", *access]) == 0


@pytest.mark.parametrize(
    ("excluded", "cordoned", "until", "problem"),
    [
        (True, False, "4h", "n would not be drained: excluded: mine; `include n` ends that"),
        (False, True, "4h", "n would not be drained: somebody else cordoned it"),
        (False, False, "tomorrow", "--until: 'tomorrow' is not a later time with its zone"),
        (False, False, "2020-01-01T00:00Z", "is not a later time"),
        (False, False, "2099-01-01T00:00", "is not a later time"),
    ],
)
def test_a_drain_that_would_not_happen_is_refused(
    cluster: Cluster,
    access: list[str],
    capsys: pytest.CaptureFixture[str],
    excluded: bool,
    cordoned: bool,
    until: str,
    problem: str,
) -> None:
    raw = node("n", "False", unschedulable=cordoned)
    raw["metadata"].setdefault("annotations", {}).update({EXCLUDE_KEY: "mine"} if excluded else {})
    cluster.put(f"{NODES}/n", raw)
    assert main(["drain", "n", "--why", "w", "--until", until, *access]) in (1, 2)
    assert problem in capsys.readouterr().err
    assert DRAIN_KEY not in cluster.get(f"{NODES}/n")["metadata"]["annotations"]


def test_what_a_human_excludes_stays_and_is_reported(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cordoned = State(Phase.CORDONED, "one/selfheal-remediator")
    raw = _carries("mine", cordoned, cordoned=True)
    raw["metadata"]["annotations"][EXCLUDE_KEY] = "disk is replaced"
    cluster.put(f"{NODES}/mine", raw)
    arguments = ["uncordon", "--all", "--timeout", "5", "-n", "one", *access]
    assert main(arguments) == 1
    assert "mine is left: excluded: disk is replaced" in capsys.readouterr().out
    assert cluster.get(f"{NODES}/mine")["spec"]["unschedulable"] is True


def test_what_cannot_be_uncordoned_is_reported_and_the_status_says_so(
    cluster: Cluster, access: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = node("odd", "True", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = "{"
    cluster.put(f"{NODES}/odd", raw)
    arguments = ["uncordon", "--all", "--timeout", "5", "-n", "one", *access]
    assert main(arguments) == 1
    assert "odd is left" in capsys.readouterr().out
    assert main([*arguments, "--best-effort"]) == 0


def test_an_unreadable_stop_stops_nothing() -> None:
    assert stopped_until({STOP_KEY: "soon"}) == 0.0
    assert stopped_until({}) == 0.0
