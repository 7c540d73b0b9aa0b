"""A new installation observes before it enforces: what decides it, and the whole remediator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.cli.inspection import status
from selfheal_remediator.cli.tables import status_text
from selfheal_remediator.config import Config, SettingsError, parse_config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube import observe_first
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.lease import LeaseView
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    LEASE,
    NODES,
    advance,
    leave,
    node,
    running,
    stamp,
    until,
    until_later,
)
from tests.support.samples import sample

KEY = observe_first.FIRST_START_KEY
EVENTS = "/api/v1/namespaces/d/events"
NOW = 1_800_000_000.0


def _config(observe: str | int = "10m", **more: Any) -> Config:
    values = {
        "observeFirst": observe,
        "rules": [{"condition": "Fault", "for": 0, "action": "cordon"}],
        "limits": {"maxUnavailable": "100%"},
        "policies": {"enabled": False},
    }
    return Config.model_validate({**values, **more})


def _paused(remediator: Remediator) -> bool:
    return sample(remediator.metrics.registry, "selfheal_remediator_paused") == 1


# -- the decision --------------------------------------------------------------------------


@given(st.floats(0, 1e6), st.floats(0, 2e6))
def test_it_enforces_when_so_long_has_passed_since_the_first_start(
    observe: float, passed: float
) -> None:
    config = Config.model_validate({"observeFirst": observe})
    acted_by = observe_first.effective(config, NOW, NOW + passed)
    assert acted_by.dry_run is (NOW + passed < NOW + observe)
    assert acted_by.model_copy(update={"mode": "enforce"}) == config


def test_what_is_not_known_is_observed() -> None:
    assert observe_first.effective(Config(), None, NOW).dry_run
    assert not observe_first.effective(_config(0), None, NOW).dry_run


def test_a_dry_run_never_enforces() -> None:
    config = _config(0, mode="dryRun")
    assert observe_first.effective(config, 0.0, NOW).dry_run
    assert observe_first.observing_until(config, 0.0) is None


@pytest.mark.parametrize(
    ("annotations", "was_held", "written"),
    [
        (None, False, time_text(NOW)),  # a new installation
        ({}, False, time_text(NOW)),  # its Lease was made by somebody beforehand
        ({"example.com/x": "y"}, False, time_text(NOW)),
        ({}, True, observe_first.LONG_AGO),  # an upgrade
        ({"selfheal.dev/paused": "x"}, False, observe_first.LONG_AGO),
        ({KEY: time_text(NOW - 60)}, True, None),  # a restart, another leader
        ({KEY: observe_first.LONG_AGO}, True, None),
        ({KEY: ""}, True, time_text(NOW)),  # after an uninstall
        ({KEY: "soon"}, True, time_text(NOW)),
    ],
)
def test_the_first_start_is_written_once(
    annotations: dict[str, str] | None, was_held: bool, written: str | None
) -> None:
    assert observe_first.annotation_to_write(annotations, was_held=was_held, now=NOW) == written


@pytest.mark.parametrize("value", ["soon", "-1s", "true", "[1]"])
def test_a_time_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="observeFirst"):
        parse_config(f"observeFirst: {value}", "x")


@pytest.mark.parametrize(
    ("annotations", "written"),
    [
        (None, time_text(NOW - 9)),  # the Lease was deleted
        ({"selfheal.dev/paused": "x"}, time_text(NOW - 9)),
        ({KEY: ""}, time_text(NOW)),
        ({KEY: observe_first.LONG_AGO}, None),
    ],
)
def test_what_was_read_before_is_written_again(
    annotations: dict[str, str] | None, written: str | None
) -> None:
    known = time_text(NOW - 9)
    told = observe_first.annotation_to_write(annotations, was_held=True, now=NOW, known=known)
    assert told == written


# -- the whole remediator ------------------------------------------------------------------


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A node to be cordoned, and one that stays."""
    made = FakeApi(lambda verb, path: "")
    made.put(f"{NODES}/n", node("n", "True"))
    made.put(f"{NODES}/other", node("other", "False"))
    yield made
    made.close()


def _lease(ago: float | None, **more: Any) -> dict[str, Any]:
    annotations = {} if ago is None else {KEY: stamp(ago)}
    meta = {"name": "selfheal-remediator", "namespace": "d", "annotations": annotations}
    return {"kind": "Lease", "metadata": meta, "spec": more}


def _cordoned(api: FakeApi) -> bool:
    return "unschedulable" in api.get(f"{NODES}/n")["spec"]


def _dry_run_sent(remediator: Any) -> bool:
    entry = remediator.planner.entry_named("n")
    return entry is not None and entry.assessment.standing == "cordoned"


def test_a_first_start_only_says_what_it_would_do(api: FakeApi) -> None:
    with running(api, _config()) as remediator:
        until("it is sent as a dry run", lambda: _dry_run_sent(remediator))
        assert not _cordoned(api)
        assert observe_first.first_start(api.get(LEASE)["metadata"]["annotations"]) is not None
        remediator.reconfigure(_config(0))
        until("it is cordoned", lambda: _cordoned(api))


def test_it_enforces_at_its_time_though_nothing_is_heard(api: FakeApi) -> None:
    api.put(LEASE, _lease(300))
    with running(api, _config()) as remediator:
        until("it is sent as a dry run", lambda: _dry_run_sent(remediator))
        assert not _cordoned(api)
        advance(remediator, 299)
        until_later(remediator, "it is cordoned", lambda: _cordoned(api))


@pytest.mark.parametrize(
    "lease",
    [
        _lease(3600, holderIdentity="", renewTime="2026-01-01T00:00:00.000000Z"),
        _lease(None, holderIdentity="", renewTime="2026-01-01T00:00:00.000000Z"),
    ],
)
def test_a_restart_and_an_upgrade_do_not_observe_again(api: FakeApi, lease: dict[str, Any]) -> None:
    api.put(LEASE, lease)
    with running(api, _config()):
        until("it is cordoned", lambda: _cordoned(api))


def test_a_first_start_that_is_taken_away_is_remembered(api: FakeApi) -> None:
    api.put(LEASE, _lease(3600, renewTime="2026-01-01T00:00:00.000000Z"))
    with running(api, _config()) as remediator:
        until("it is cordoned", lambda: _cordoned(api))
        with api.changing(LEASE) as raw:
            raw["metadata"]["annotations"] = {"selfheal.dev/paused": "seen"}
        until("it is heard", lambda: _paused(remediator))
        assert not remediator.config.dry_run


def test_it_says_that_it_observes_and_when_it_acts(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "selfheal_remediator.kube.events.EventWriter.record",
        lambda _, event: said.append(event.reason),
    )
    with running(api, _config()) as remediator:
        until("it is sent as a dry run", lambda: _dry_run_sent(remediator))
        until("it says so", lambda: "Observing" in said)
        assert _paused(remediator)
        advance(remediator, 601)
        until_later(remediator, "it is cordoned", lambda: _cordoned(api))
        assert not _paused(remediator)
    assert [reason for reason in said if reason in ("Observing", "Enforcing")] == [
        "Observing",
        "Enforcing",
    ]


@pytest.mark.parametrize("known", [True, False])
def test_a_restart_and_an_upgrade_say_nothing_of_it(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Also where what the Lease says and the leadership are heard in one breath."""
    said: list[str] = []
    monkeypatch.setattr(
        "selfheal_remediator.kube.events.EventWriter.record",
        lambda _, event: said.append(event.reason),
    )
    spec = {"holderIdentity": "", "renewTime": "2026-01-01T00:00:00.000000Z"}
    api.put(LEASE, _lease(3600 if known else None, **spec))
    with running(api, _config()) as remediator:
        until("it is cordoned", lambda: _cordoned(api))
        done: list[bool] = []

        def both() -> None:
            mode, leadership = remediator.parts.mode, remediator.leadership
            mode.first_start = observe_first.FirstStart()
            leadership.use(mode.wanted(remediator.clock()))
            leadership.lease_changed({KEY: stamp(3600)})
            leadership.lead(True)
            done.append(True)

        remediator.post(both)
        until("it is heard", lambda: bool(done) and not remediator.config.dry_run)
    assert not {"Observing", "Enforcing"} & set(said)


def test_a_standby_continues_with_the_same_first_start(api: FakeApi) -> None:
    """The leader dies in the middle."""
    cordoned = {"holderIdentity": "other", "leaseDurationSeconds": 3600, "renewTime": stamp(0)}
    api.put(LEASE, _lease(300, **cordoned))
    first = api.get(LEASE)["metadata"]["annotations"][KEY]
    with running(api, _config()) as remediator:
        until("it has heard", lambda: remediator.parts.mode.known)
        leave(api)
        until("it is sent as a dry run", lambda: _dry_run_sent(remediator))
        assert api.get(LEASE)["metadata"]["annotations"][KEY] == first
        assert not _cordoned(api)
        advance(remediator, 301)  # not 600 more
        until_later(remediator, "it is cordoned", lambda: _cordoned(api))


@pytest.mark.parametrize("ago", [300, 3600])
def test_a_lease_that_is_deleted_in_the_middle_is_made_again_with_its_first_start(
    api: FakeApi, ago: float
) -> None:
    api.put(LEASE, _lease(ago, holderIdentity=""))
    first = api.get(LEASE)["metadata"]["annotations"][KEY]
    with running(api, _config(lease={"renewInterval": "100ms"})) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        acts = not remediator.config.dry_run
        api.put(LEASE, None)
        until("it is made again", lambda: LEASE in api.objects)
        until("it leads again", lambda: remediator.leader.leading)
        assert api.get(LEASE)["metadata"]["annotations"][KEY] == first
        assert (not remediator.config.dry_run) is acts is (ago > 600)


def test_a_first_start_that_is_to_come_counts_as_now() -> None:
    """The clock that wrote it was ahead, for however long."""
    start, annotations = observe_first.FirstStart(), {KEY: time_text(NOW + 1e7)}
    start.read(annotations, NOW)
    start.read(annotations, NOW + 100)
    assert start.counts == NOW
    assert not observe_first.effective(_config(), start.counts, NOW + 600).dry_run
    start.read({}, NOW + 200)
    assert start.counts == NOW
    start.read({KEY: time_text(NOW - 50)}, NOW + 200)
    assert start.counts == NOW - 50


def test_status_says_until_when(api: FakeApi) -> None:
    lease = LeaseView("l", "d", "u", "1", "x", "", 0, 15.0, {KEY: time_text(NOW)}, None)

    class Empty:
        def __getattr__(self, _: str) -> Any:
            return lambda *_: type("Pages", (), {"pages": lambda _: iter(())})()

    nothing: KubernetesApi = Empty()  # type: ignore[assignment]
    config = _config()
    text = status_text(status(nothing, config, lease, NOW + 1))
    assert f"mode enforce (observing until {time_text(NOW + 600)})" in text
    assert "observing" not in status_text(status(nothing, config, lease, NOW + 600))
