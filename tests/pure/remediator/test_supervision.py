"""Nothing that a thread or a job raises ends it silently, and no job waits behind another kind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from selfheal_remediator.config import ApiBudget, Config
from selfheal_remediator.failures import ApiFailure, Expired
from selfheal_remediator.kube.informer import Reflector
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.kube.rate_limit import Budget
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.kube.transport import Transport
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Purpose, Workers
from selfheal_remediator.threads.runtime import Event
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.fake_runtime import FakeRuntime
from tests.pure.remediator.running import NODES, node, running, until, until_later

CORDON = Config.model_validate(
    {
        "rules": [{"condition": "Fault", "for": 0, "action": "cordon"}],
        "limits": {"maxUnavailable": "100%"},
        "policies": {"enabled": False},
    }
)
pytestmark = pytest.mark.usefixtures("quick_restarts")
ERRORS = [RuntimeError("a pool of its own"), OSError("token file"), LookupError(), ValueError("{")]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """One good node."""
    made = FakeApi(lambda verb, path: "")
    made.put(f"{NODES}/bad", node("bad", "False"))
    yield made
    made.close()


def _cordoned(api: FakeApi) -> bool:
    return bool(api.get(f"{NODES}/bad")["spec"].get("unschedulable"))


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("verb", ["PATCH", "GET"])
def test_a_cordon_whose_request_raises_is_tried_again(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, error: Exception, verb: str
) -> None:
    raised, send = threading.Event(), Transport.send

    def once(self: Transport, method: str, path: str, *args: Any, **values: Any) -> Answer:
        first = method == "PATCH" and not raised.is_set()
        read_after = method == verb == "GET" and raised.is_set() and not again.is_set()
        if path == f"{NODES}/bad" and (first or read_after):
            (again if read_after else raised).set()
            raise error
        return send(self, method, path, *args, **values)

    again = threading.Event()
    monkeypatch.setattr(Transport, "send", once)
    with running(api, CORDON) as remediator:
        api.put(f"{NODES}/bad", node("bad", "True"))
        until_later(remediator, "it is cordoned", lambda: _cordoned(api))
    assert raised.is_set()


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_node_watch_that_cannot_be_opened_continues(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    raised, open_watch = threading.Event(), Transport.open_watch

    def once(self: Transport, path: str, query: Any) -> Any:
        if path == NODES and not raised.is_set():
            raised.set()
            raise error
        return open_watch(self, path, query)

    monkeypatch.setattr(Transport, "open_watch", once)
    with running(api, CORDON):
        until("it raised", raised.is_set)
        api.put(f"{NODES}/bad", node("bad", "True"))
        until("it is cordoned", lambda: _cordoned(api))


def test_a_thread_that_raises_is_started_again_and_counted() -> None:
    runs: queue.SimpleQueue[int] = queue.SimpleQueue()
    errors = [SystemExit(1), RuntimeError("x")]

    threads: list[threading.Thread] = []

    def target() -> None:
        threads.append(threading.current_thread())
        runs.put(len(errors))
        if errors:
            raise errors.pop()

    runtime = FakeRuntime()
    supervision.start("test", target, threading.Event(), name="test-one", runtime=runtime)
    assert [runs.get(timeout=30) for _ in range(3)] == [2, 1, 0]
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert {thread.name for thread in threads} == {"test-one"}
    assert supervision.failures(runtime) == {"test": 2}
    assert supervision.failures(FakeRuntime()) == {}


def test_a_leader_that_hears_no_nodes_gives_the_lease_up(api: FakeApi) -> None:
    lease = "/apis/coordination.k8s.io/v1/namespaces/d/leases/selfheal-remediator"
    with running(api, CORDON) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        remediator.parts.nodes.age = lambda: 1e6  # type: ignore[method-assign]
        remediator.post(lambda: None)
        until("it lets go", lambda: api.get(lease)["spec"]["holderIdentity"] == "")
        until("it says so", lambda: "silent" in remediator.ready())
        assert not remediator.leader.leading


def test_a_list_under_way_at_a_takeover_is_not_acted_on(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread hears of the old list's end only when the new list has begun."""
    with running(api, CORDON) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        done = threading.Event()

        def take_over() -> None:
            nodes = remediator.parts.nodes
            old = nodes.informer.last_list.answers
            remediator.leadership.lead(True)
            nodes.informer.requests.begin()  # the new list begins
            nodes.all_known(old)  # and only now the old one's end is heard
            assert not remediator.synced
            nodes.list_again()
            nodes.informer.end_watch()
            done.set()

        remediator.post(take_over)
        until("it was taken over", done.is_set)
        until("the new list is there", lambda: remediator.synced)


def test_no_purpose_waits_for_another_and_no_node_for_another_node() -> None:
    workers, gate = Workers(8), threading.Event()
    done: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hangs() -> None:
        gate.wait()

    for _ in range(100):
        workers.submit(hangs, Purpose.EVICTIONS, "hangs")
    try:
        for purpose in Purpose:
            workers.submit(lambda name=purpose.value: done.put(name), purpose, "other")  # type: ignore[misc]
        assert {done.get(timeout=30) for _ in Purpose} == {purpose.value for purpose in Purpose}
    finally:
        gate.set()


def test_what_protects_waits_for_no_other_requests_turn() -> None:
    budget = Budget(ApiBudget(qps=1, burst=1), lambda: 0.0)
    for _ in range(30):
        budget.reserve()
    assert budget.reserve(protects=True) <= 0
    assert budget.reserve() >= 30


def test_a_version_that_expires_again_and_again_is_waited_for_and_reported() -> None:
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 4:
                self.set()
            return self.is_set()

    class Gone:
        def pages(self) -> Iterator[tuple[list[dict[str, Any]], str]]:
            raise Expired(410, "Expired", "too old")
            yield

        def watch(self, version: str, stop: Event) -> Generator[Any, None, None]:
            raise AssertionError

    told: list[ApiFailure] = []
    Reflector(
        Gone(), node_from_json, lambda n: n.name, lambda _: None, lambda: None, told.append, Stop()
    ).run()
    assert waits[3] > waits[0] > 0
    assert len(told) == 1


def _status(message: str, causes: str = "") -> bytes:
    details = f',"details":{{"causes":[{{"reason":"{causes}"}}]}}' if causes else ""
    text = (
        f'{{"kind":"Status","code":429,"reason":"TooManyRequests","message":"{message}"{details}}}'
    )
    return text.encode()


@pytest.mark.parametrize(
    ("body", "retry_after", "throttled"),
    [
        (b"Too many requests, please try again later.\n", 1.0, True),
        (_status("the server has received too many requests"), 1.0, True),
        (_status("the server has received too many requests"), None, False),
        (_status("admission webhook 'w' denied the request: later"), 5.0, False),
        (_status("Cannot evict pod as it would violate the pod's disruption budget."), 10.0, False),
        (_status("Cannot evict pod", "DisruptionBudget"), 10.0, False),
        (_status("limit reached on type Namespace for key d"), 1.0, False),
        (_status("storage is (re)initializing"), 1.0, False),
    ],
)
def test_only_flow_control_is_about_the_client(
    body: bytes, retry_after: float | None, throttled: bool
) -> None:
    answer = Answer(429, body, retry_after)
    assert answer.throttled is throttled
    assert answer.failure().retry_after == retry_after
