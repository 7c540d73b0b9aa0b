"""etcd is restored from a backup: versions go back in time, and policies still count."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.healing.policy_state import PolicyState
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Reflector, WatchEvent
from selfheal_remediator.kube.objects import Json, node_from_json
from selfheal_remediator.kube.transport import WATCH_SILENCE
from selfheal_remediator.node.annotation import STATE_KEY, Phase, read_state
from selfheal_remediator.threads.runtime import Event
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.fake_runtime import FakeRuntime
from tests.pure.remediator.running import (
    NODES,
    PATIENCE,
    PODS,
    POLICIES,
    node,
    pod,
    running,
    until,
    until_later,
    web_pod,
    web_policy,
)

POLICY = f"{POLICIES}/web"


@pytest.fixture(autouse=True)
def _writes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfheal_remediator.healing.status_writer.STATUS_EVERY", 1.0)


def _api(made: type[FakeApi] = FakeApi) -> FakeApi:
    api = made(lambda verb, path: "")
    for name in ("a", "b"):
        api.put(f"{NODES}/{name}", node(name, "False"))
        api.put(f"{PODS}/web-{name}", web_pod("web", name, "True"))
    api.put(POLICY, web_policy("web"))
    return api


def _config() -> Config:
    return Config.model_validate({"rules": [], "policies": {"evaluationInterval": "1s"}})


def _policies(made: Remediator) -> PolicyState:
    return made.healer.healing.policy_states["d/web"]


def _until_status(made: Remediator, api: FakeApi, state: str) -> None:
    def written() -> bool:
        return bool(api.get(POLICY).get("status", {}).get("state") == state)

    until_later(made, f"its status is {state}", written)


def _paused(api: FakeApi, paused: bool) -> None:
    with api.changing(POLICY) as raw:
        raw["spec"]["paused"] = paused
        raw["metadata"]["generation"] += 1


def _next_version(api: FakeApi, path: str) -> None:
    with api.news:
        api.put(path, api.get(path))


def _goes_ahead(api: FakeApi) -> None:
    """So far that its versions do not catch up in a test."""
    for _ in range(300):
        _next_version(api, f"{NODES}/b")


def test_a_policy_that_was_restored_counts_at_once_and_its_status_is_written_again() -> None:
    api = _api()
    _paused(api, True)
    with running(api, _config()) as made:
        _until_status(made, api, "Paused")
        backup = api.backup()
        _paused(api, False)
        until("it is known", lambda: not _policies(made).policy.paused)
        _until_status(made, api, "Healthy")
        _goes_ahead(api)
        _next_version(api, POLICY)
        api.restore(backup)
        until("the pause of before counts", lambda: _policies(made).policy.paused)
        _until_status(made, api, "Paused")
        # And so does what is asked for from now on.
        _paused(api, False)
        until("it is known", lambda: not _policies(made).policy.paused)
        _until_status(made, api, "Healthy")
    api.close()


def test_an_answer_of_before_the_restore_hides_nothing_and_loses_no_budget() -> None:
    """The status is written; before the answer is handled, etcd goes back to before it."""
    api = _api()
    with running(api, _config()) as made:
        _until_status(made, api, "Healthy")
        backup = api.backup()
        _goes_ahead(api)
        api.put(f"{PODS}/web-a", web_pod("web", "a", "False"))
        until_later(made, "it is restarted", lambda: api.get(POLICY)["status"].get("restarts") == 1)
        until(
            "it is known",
            lambda: _policies(made).restarts == 1 and made.healer.restarts_in_flight == 0,
        )
        api.restore(backup)
        until_later(
            made,
            "the restart is written down again",
            lambda: (
                len((api.get(POLICY)["status"].get("owners") or [{}])[0].get("restarts", [])) == 1
            ),
        )
    api.close()


def test_a_version_that_the_server_does_not_know_is_read_again() -> None:
    """The restored policy is as it was last heard of; only our own write of it is lost."""
    api = _api()
    with running(api, _config()) as made:
        _until_status(made, api, "Healthy")

        def forge() -> None:
            policy_state = _policies(made)
            policy_state.policy = replace(policy_state.policy, version="999999999")

        made.post(forge)
        _paused(api, True)
        until("what is asked for counts", lambda: _policies(made).policy.paused)
        _until_status(made, api, "Paused")
    api.close()


def test_not_being_the_leader_after_the_status_was_written_keeps_its_new_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else every later write of the status is refused, and the restart stays counted."""
    evict, once = KubernetesApi.evict, threading.Event()

    def not_now(self: KubernetesApi, *args: Any, dry_run: bool = False) -> Any:
        if not dry_run and not once.is_set():
            once.set()
            raise NotLeader
        return evict(self, *args, dry_run=dry_run)

    monkeypatch.setattr(KubernetesApi, "evict", not_now)
    conflicts: list[str] = []

    class Conflicting(FakeApi):
        def _patch(self, path: str, body: Any, *, dry_run: bool) -> tuple[int, Json]:
            answer = super()._patch(path, body, dry_run=dry_run)
            if path == POLICY and answer[0] == 409:
                conflicts.append(path)
            return answer

    api = _api(Conflicting)
    with running(api, _config()) as made:
        _until_status(made, api, "Healthy")
        made.healer.policies.changed = lambda change: None  # type: ignore[method-assign]
        api.put(f"{PODS}/web-a", web_pod("web", "a", "False"))
        # At its own pace: a status that is still being written would be a conflict, too.
        until("it is sent at the second time", lambda: f"{PODS}/web-a" not in api.objects)
        until("it is written down", lambda: api.get(POLICY)["status"].get("restarts") == 1)
        assert conflicts == []
    api.close()


class Silent:
    """A collection whose watch ends without a word; later it tells. gives_up: after how long our
    side ends it, None = the server does."""

    def __init__(self, clock: list[float], gives_up: float | None) -> None:
        self.clock, self.lists, self.watched = clock, 0, threading.Event()
        self.gives_up = gives_up

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        self.lists += 1
        yield [], "9"

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        if self.lists > 1:
            self.watched.set()
            stop.wait(PATIENCE)
        if self.gives_up is not None:
            self.clock[0] += self.gives_up
            raise ApiFailure(0, "ReadTimeoutError", "read timed out")
        self.clock[0] += 300.0
        yield from ()


@pytest.mark.parametrize("gives_up", [None, WATCH_SILENCE])
def test_after_a_watch_that_reported_nothing_at_all_everything_is_listed(
    gives_up: float | None,
) -> None:
    """A restored server that is behind our version sends no event, and no bookmark either."""
    clock, runtime = [0.0], FakeRuntime(pauses=0.01)
    runtime.clock = lambda: clock[0]
    source, stop = Silent(clock, gives_up), threading.Event()
    reflector = Reflector(
        source,
        node_from_json,
        lambda found: found.name,
        lambda change: None,
        lambda: None,
        lambda failure: None,
        stop,
        runtime=runtime,
    )
    thread = threading.Thread(target=reflector.run, daemon=True)
    thread.start()
    assert source.watched.wait(PATIENCE)
    stop.set()
    thread.join(PATIENCE)
    assert source.lists == 2


@pytest.mark.parametrize("phase", [Phase.DRAINING, None])
def test_a_node_whose_drain_had_ended_is_drained_again(phase: Phase | None) -> None:
    """phase: what the annotation says after the restore, None = there is none."""
    api = FakeApi(lambda verb, path: "")
    for name in ("a", "b", "c"):
        api.put(f"{NODES}/{name}", node(name, "True" if name == "a" else "False"))
    rules = [{"condition": "Fault", "for": "0s", "action": "drain"}]
    settings = {"rules": rules, "drain": {"headroom": False}, "policies": {"enabled": False}}

    def drained() -> bool:
        state = read_state(node_from_json(api.get(f"{NODES}/a")))
        return state is not None and state.phase is Phase.DRAINED

    with running(api, Config.model_validate(settings)):
        until("it is drained", drained)
        with api.changing(f"{NODES}/a") as raw:
            if phase is None:
                del raw["metadata"]["annotations"][STATE_KEY]
                del raw["spec"]["unschedulable"]
            else:
                state = read_state(node_from_json(raw))
                assert state is not None
                before = replace(state, phase=phase)
                raw["metadata"]["annotations"][STATE_KEY] = before.to_json()
            api.put(f"{PODS}/web-a", pod("web-a", "a"))  # or it were drained before that
        until("it is drained again", lambda: f"{PODS}/web-a" not in api.objects and drained())
    api.close()
