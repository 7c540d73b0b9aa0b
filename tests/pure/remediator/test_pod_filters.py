"""Which pods go, stay, or do not count: kubectl's meaning, but one pod never stops the rest."""

from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Fate, Surroundings, sort_pod
from tests.pure.remediator.builders import NOW, pod

DAEMON = {"owner_kind": "DaemonSet", "owner_name": "agent", "owner_uid": "ds-uid"}
BARE = {"owner_kind": "", "owner_api": ""}
KNOWN = frozenset({("default", "agent", "ds-uid")})


@pytest.mark.parametrize(
    ("name", "values", "drain", "fate"),
    [
        ("replica", {}, {}, Fate.EVICT),
        ("pending", {"phase": "Pending"}, {}, Fate.EVICT),
        ("finished", {"phase": "Succeeded"}, {}, Fate.IGNORE),
        ("failed", {"phase": "Failed"}, {}, Fate.IGNORE),
        ("mirror", {"mirror": True, "owner_kind": "Node"}, {}, Fate.IGNORE),
        ("daemon", DAEMON, {}, Fate.IGNORE),
        ("daemon of another uid", {**DAEMON, "owner_uid": "old"}, {}, Fate.EVICT),
        ("daemon-like operator", {**DAEMON, "owner_api": "example.com/v1"}, {}, Fate.EVICT),
        ("unmanaged", BARE, {}, Fate.STAY),
        ("unmanaged, by setting", BARE, {"unmanagedPods": "evict"}, Fate.EVICT),
        ("unmanaged but finished", {**BARE, "phase": "Succeeded"}, {}, Fate.IGNORE),
        ("asked to stay", {"keep_reason": "annotation x"}, {}, Fate.STAY),
        ("emptyDir", {"empty_dir": True}, {}, Fate.EVICT),
        ("emptyDir, by setting", {"empty_dir": True}, {"deleteEmptyDir": False}, Fate.STAY),
        ("pinned", {"pinned": True}, {}, Fate.STAY),
        ("local volume", {"claims": ("local",)}, {}, Fate.STAY),
        ("other volume", {"claims": ("remote",)}, {}, Fate.EVICT),
        ("terminating", {"deletion": NOW, "keep_reason": "x"}, {}, Fate.EVICT),
        ("terminating daemon", {**DAEMON, "deletion": NOW}, {}, Fate.IGNORE),
    ],
)
def test_fates(name: str, values: dict[str, Any], drain: dict[str, Any], fate: Fate) -> None:
    around = Surroundings(
        Drain.model_validate(drain),
        daemon_sets=KNOWN,
        local_claims=frozenset({("default", "local")}),
    )
    sorting = sort_pod(pod(**values), around)
    assert sorting.fate is fate
    assert sorting.reason or fate is Fate.EVICT


def test_unknown_daemon_sets_count_as_existing() -> None:
    assert sort_pod(pod(**DAEMON), Surroundings(Drain())).fate is Fate.IGNORE


def test_waves() -> None:
    around = Surroundings(Drain(), own_uid="uid-me")
    assert sort_pod(pod("web"), around).wave == 0
    assert sort_pod(pod("dns", priority=2_000_000_000), around).wave == 1
    assert sort_pod(pod("me", priority=2_000_001_000), around).wave == 2


def test_by_priority_the_lowest_goes_first_and_we_last() -> None:
    around = Surroundings(Drain.model_validate({"order": "priority"}), own_uid="uid-me")
    priorities = [-(2**31), -1, 0, 1000, 2_000_000_000, 2_000_001_000]
    waves = [sort_pod(pod(priority=priority), around).wave for priority in priorities]
    assert waves == sorted(set(waves))
    assert waves[0] >= 0
    assert sort_pod(pod("me", priority=-1), around).wave > waves[-1]


def test_a_pod_that_asks_to_stay_for_a_time_stays_so_long() -> None:
    around = Surroundings(Drain())
    asked = pod(keep_reason="annotation x=1h", keep_until=NOW + 3600)
    kept = sort_pod(asked, around, NOW + 3599)
    assert (kept.fate, kept.reason, kept.until) == (Fate.STAY, "annotation x=1h", NOW + 3600)
    assert sort_pod(asked, around, NOW + 3600).fate is Fate.EVICT
    assert sort_pod(pod(keep_reason="x"), around, NOW + 1e9).fate is Fate.STAY  # for ever
    assert sort_pod(asked, around).fate is Fate.STAY  # no time given: not over


KRUISE = {"owner_kind": "DaemonSet", "owner_name": "agent", "owner_api": "apps.kruise.io/v1alpha1"}
KEEPS = Drain.model_validate({"keepOwners": ["apps.kruise.io/DaemonSet", "Agent"]})


@pytest.mark.parametrize(
    ("values", "fate"),
    [
        (KRUISE, Fate.IGNORE),
        ({**KRUISE, "owner_api": "apps.kruise.io/v1beta1"}, Fate.IGNORE),  # whatever its version
        ({**KRUISE, "deletion": NOW}, Fate.IGNORE),
        ({**KRUISE, "keep_reason": "x", "pinned": True}, Fate.IGNORE),
        ({**KRUISE, "owner_api": "kruise.io/v1alpha1"}, Fate.EVICT),
        ({**KRUISE, "owner_kind": "CloneSet"}, Fate.EVICT),
        ({"owner_kind": "Agent", "owner_api": "v1"}, Fate.IGNORE),  # the core group
        ({"owner_kind": "Agent", "owner_api": "example.com/v1"}, Fate.EVICT),
        (BARE, Fate.STAY),
    ],
)
def test_pods_of_kept_owners_belong_to_the_node(values: dict[str, Any], fate: Fate) -> None:
    assert sort_pod(pod(**values), Surroundings(KEEPS)).fate is fate


def test_a_pod_of_a_kept_owner_may_return() -> None:
    """As a DaemonSet's it is neither counted nor evicted, nor is anything read about it."""
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, Surroundings(KEEPS), synced=True)
    for number in range(9):
        made.pod_changed(None, pod(f"agent-{number}", claims=("data",), **KRUISE))
        made.pod_changed(pod(f"agent-{number}", **KRUISE), None)
    made.pod_changed(None, pod("agent", claims=("data",), **KRUISE))
    actions = made.step(NOW)
    assert (actions.done, actions.look_up, made.returns.counts) == (True, (), {})
