"""The election, against a Lease kept in memory with the API server's rules."""

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from selfheal_remediator.config import LeaseSettings
from selfheal_remediator.failures import NotLeader
from selfheal_remediator.kube import election as leader_module
from selfheal_remediator.kube.candidacy import Candidacy, free_in
from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.fence import Fence
from selfheal_remediator.kube.informer import Change, WatchEvent
from selfheal_remediator.kube.lease import LeaseView, lease_from_json
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.threads.runtime import REAL, Event, Runtime
from tests.pure.remediator import json_patch
from tests.pure.remediator.fake_runtime import FakeRuntime

SETTINGS = LeaseSettings.model_validate(
    {"duration": "1s", "renewInterval": "50ms", "renewDeadline": "300ms"}
)


class Server:
    """One Lease, its watchers, and a wire that can be cut for one identity."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.raw: dict[str, Any] | None = None
        self.version = 0
        self.history: list[dict[str, Any]] = []
        self.cut: set[int] = set()

    def change(self, raw: dict[str, Any]) -> Answer:
        """Store it as the next version."""
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.raw = raw
        self.history.append(json.loads(json.dumps(raw)))
        self.news.notify_all()
        return Answer(200, json.dumps(raw).encode())


class Client:
    """LeaseApi and the Lease's watch of one process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.closed = threading.Event()
        self.down = False

    def settle(self, seconds: float) -> bool:
        return True

    def write(
        self, method: str, path: str, body: Any, *, content_type: str = "", **_: Any
    ) -> Answer:
        if self.down:
            return Answer(503, b"")
        with self.server.news:
            current = self.server.raw
            if method == "POST":
                meta = {**body["metadata"], "namespace": "ns", "uid": "u"}
                made = {"metadata": meta, "spec": dict(body["spec"])}
                return Answer(409, b"{}") if current else self.server.change(made)
            if current is None:
                return Answer(404, b"{}")
            if "json-patch" in content_type:
                return self._json_patch(current, body)
            if body["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]:
                return Answer(409, b"{}")
            return self.server.change({**current, "spec": {**current["spec"], **body["spec"]}})

    def _json_patch(self, current: dict[str, Any], patch: list[dict[str, Any]]) -> Answer:
        try:
            return self.server.change(json_patch.apply(current, patch))
        except json_patch.TestFailed:
            return Answer(422, b"{}")

    def pages(self) -> Iterator[tuple[list[dict[str, Any]], str]]:
        with self.server.news:
            items = [json.loads(json.dumps(self.server.raw))] if self.server.raw else []
            version = str(self.server.version)
        yield items, version

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        seen = int(version)
        while not stop.is_set() and not self.closed.is_set():
            with self.server.news:
                if self.server.version == seen:
                    self.server.news.wait(0.05)
                fresh = self.server.history[seen:]
                seen = self.server.version
            if not self.down:
                yield from (WatchEvent("MODIFIED", raw) for raw in fresh)

    def close(self) -> None:
        self.closed.set()


class Candidate:
    """One process."""

    def __init__(
        self, server: Server, name: str, client: Client | None = None, runtime: Runtime = REAL
    ) -> None:
        self.client = client or Client(server)
        self.said: list[bool] = []
        self.annotations: list[Mapping[str, str]] = []
        self.leader = Leader(
            self.client,
            self.client,
            SETTINGS,
            "ns",
            name,
            self.said.append,
            self.annotations.append,
            runtime=runtime,
        )

    @property
    def may_write(self) -> bool:
        try:
            self.leader.fence()
        except NotLeader:
            return False
        return True


class Moving(FakeRuntime):
    """A clock that stands still, however slow the machine is, but for `until`."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 1000.0
        self.clock = lambda: self.moment

    def until(self, look: Callable[[], bool]) -> None:
        """A hundredth of a second passes at each look."""

        def later() -> bool:
            self.moment += 0.01
            return look()

        _until(later)


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch) -> Moving:
    monkeypatch.setattr(leader_module, "TICK", 0.01)  # nobody wakes who waits for a moment
    return Moving()


@pytest.fixture
def candidates(moving: Moving) -> Iterator[tuple[Candidate, Candidate]]:
    server = Server()
    both = Candidate(server, "one", runtime=moving), Candidate(server, "two", runtime=moving)
    both[0].leader.start()
    moving.until(lambda: both[0].may_write)
    both[1].leader.start()
    yield both
    for candidate in both:
        candidate.leader.close()


def _until(look: Callable[[], bool], patience: float = 20.0) -> None:
    ends = time.monotonic() + patience
    while not look():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_one_leads_at_a_time_and_a_silent_one_is_replaced(
    candidates: tuple[Candidate, Candidate], moving: Moving
) -> None:
    one, two = candidates
    assert not two.may_write
    one.client.down = True
    moving.until(lambda: two.may_write or not one.may_write)
    # The old one has stopped writing before the new one begins.
    assert not one.may_write
    moving.until(lambda: two.may_write)
    _until(lambda: one.said == [True, False])
    one.client.down = False
    _until(lambda: two.said == [True])


def test_a_clean_end_is_followed_at_once(candidates: tuple[Candidate, Candidate]) -> None:
    one, two = candidates
    one.leader.close()
    assert not one.may_write
    _until(lambda: two.may_write)
    raw = two.client.server.raw
    assert raw is not None
    assert raw["spec"]["holderIdentity"] == "two"
    assert raw["spec"]["leaseTransitions"] == 1


def test_a_pause_on_the_lease_is_heard_by_both(candidates: tuple[Candidate, Candidate]) -> None:
    one, two = candidates
    server = one.client.server
    with server.news:
        assert server.raw is not None
        meta = {**server.raw["metadata"], "annotations": {"selfheal.dev/paused": "why"}}
        server.change({**server.raw, "metadata": meta})
    for candidate in (one, two):
        _until(lambda c=candidate: {"selfheal.dev/paused": "why"} in c.annotations)  # type: ignore[misc]
    assert one.may_write


def test_news_that_are_over_do_not_lift_a_pause(candidates: tuple[Candidate, Candidate]) -> None:
    """A watch that is behind our own renewal, or reports again from where it began."""
    one, _ = candidates
    server = one.client.server
    with server.news:
        assert server.raw is not None
        before = server.raw
        meta = {**before["metadata"], "annotations": {"selfheal.dev/paused": "why"}}
        server.change({**before, "metadata": meta})
    _until(lambda: one.leader.annotations == {"selfheal.dev/paused": "why"})
    said = len(one.annotations)
    one.leader.record.heard(Change("l", None, lease_from_json(before)))
    assert one.leader.annotations == {"selfheal.dev/paused": "why"}
    assert len(one.annotations) == said


def test_a_lease_is_decoded() -> None:
    view = lease_from_json(
        {"metadata": {"name": "n", "namespace": "s", "uid": "u", "resourceVersion": "1"}}
    )
    assert view == LeaseView("n", "s", "u", "1", "", "", 0, 0.0, {}, None)


def test_a_lease_that_is_lost_at_each_renewal_is_not_taken_in_a_loop() -> None:
    """Something changes each Lease that is taken, an admission webhook say."""
    refusals: list[float] = []

    class Refused(Client):
        def _json_patch(self, *_: Any) -> Answer:
            refusals.append(time.monotonic())
            return Answer(422, b"{}")

    server = Server()
    one = Candidate(server, "one", Refused(server))
    one.leader.start()
    try:
        ends = time.monotonic() + 60
        while len(refusals) < 5:
            assert time.monotonic() < ends
            time.sleep(0.01)
    finally:
        one.leader.close()
    assert refusals[4] - refusals[3] >= 0.5


def test_a_lease_that_was_taken_without_an_answer_is_not_taken_in_a_loop() -> None:
    """The watch shows each attempt that took effect: that is no news to act upon at once."""
    attempts: list[float] = []

    class Unanswered(Client):
        def write(self, method: str, path: str, body: Any, **more: Any) -> Answer:
            attempts.append(time.monotonic())
            super().write(method, path, body, **more)
            return Answer(504, b"")

    server = Server()
    one = Candidate(server, "one", Unanswered(server))
    one.leader.start()
    try:
        _until(lambda: len(attempts) >= 8)
    finally:
        one.leader.close()
    pause = SETTINGS.renew_interval / 4
    assert min(b - a for a, b in pairwise(attempts[:8])) >= pause


def test_a_lease_whose_deletion_was_reported_before_its_making_was_answered_is_made_again() -> None:
    """The watch has already reported the deletion and will not do so again."""
    server = Server()
    one = Candidate(server, "one")
    one.leader.start()
    try:
        _until(lambda: one.leader.leading)
        with server.news:
            server.raw = None
        _until(lambda: server.raw is not None and one.leader.leading)
        made = server.raw
        assert made is not None
        _until(lambda: one.leader.annotations == made["metadata"].get("annotations", {}))
    finally:
        one.leader.close()


def _cordoned(server: Server, duration: int, **spec: Any) -> None:
    with server.news:
        meta = {"name": "l", "namespace": "ns", "uid": "u"}
        held = {"holderIdentity": "gone", "leaseDurationSeconds": duration, **spec}
        server.change({"metadata": meta, "spec": held})


def test_a_lease_that_keeps_all_away_for_long_is_reported_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leader_module, "TICK", 0.01)
    server = Server()
    _cordoned(server, 2**31 - 1)
    one = Candidate(server, "one")
    said: list[str] = []
    one.leader.on_blocked = said.append
    one.leader.start()
    try:
        _until(lambda: bool(said))
        assert "ns/l is held by gone with leaseDurationSeconds 2147483647" in said[0]
        assert "delete the Lease" in said[0]
        ticked = one.leader.last_tick
        _until(lambda: one.leader.last_tick > ticked)  # or the process would be restarted
        looks = 0

        def counted() -> str:
            nonlocal looks
            looks += 1
            return ""

        one.leader.unfit = counted
        one.leader.give_up("wakes it")
        _until(lambda: looks > 0)
        ticked = one.leader.last_tick
        _until(lambda: one.leader.last_tick > ticked)
        assert len(said) == 1
        assert not one.may_write
    finally:
        one.leader.close()


def test_an_ordinary_lease_of_somebody_else_is_not_reported() -> None:
    server = Server()
    _cordoned(server, 1)
    one = Candidate(server, "one")
    said: list[str] = []
    one.leader.on_blocked = said.append
    one.leader.start()
    try:
        _until(lambda: one.may_write)
        assert said == []
    finally:
        one.leader.close()


def test_a_lease_that_changed_hands_as_often_as_can_be_counted_is_taken_over() -> None:
    server = Server()
    _cordoned(server, 1, holderIdentity="", leaseTransitions=2**31 - 1)
    one = Candidate(server, "one")
    one.leader.start()
    try:
        _until(lambda: one.may_write)
        assert server.raw is not None
        assert server.raw["spec"]["leaseTransitions"] == 2**31 - 1
    finally:
        one.leader.close()


class Unheard(Client):
    """Its watch tells nothing, as one does from a version that a restored etcd has yet to reach."""

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        self.closed.wait(60)
        yield from ()


def test_a_lease_that_is_not_as_it_is_known_is_read_again_and_taken() -> None:
    server, listed = Server(), threading.Event()

    class Late(Unheard):
        def pages(self) -> Iterator[tuple[list[dict[str, Any]], str]]:
            yield from super().pages()
            listed.set()

    with server.news:
        server.change(_lease("gone"))
    one = Candidate(server, "one", Late(server))
    one.leader.start()
    try:
        assert listed.wait(20)
        with server.news:
            server.change(_lease("gone", renewTime="2026-01-01T00:00:01.000000Z"))
        _until(lambda: one.may_write)
    finally:
        one.leader.close()


def _lease(holder: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": "l", "namespace": "ns", "uid": "u"}
    return {
        "metadata": meta,
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1, **spec},
    }


class Refusing(Client):
    """Answers a take, or a renewal, when the test lets it."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.hold = False
        self.asked, self.answer = threading.Event(), threading.Event()

    def write(self, method: str, path: str, body: Any, **more: Any) -> Answer:
        answer = super().write(method, path, body, **more)
        if self.hold:
            self.hold = False
            self.asked.set()
            assert self.answer.wait(60)
        return answer


@pytest.mark.parametrize("leads", [False, True])
def test_an_answer_that_comes_after_the_end_opens_no_fence(leads: bool) -> None:
    server = Server()
    one = Candidate(server, "one", Refusing(server))
    client = one.client
    assert isinstance(client, Refusing)
    client.hold = not leads
    one.leader.start()
    if leads:
        _until(lambda: one.may_write)
        client.hold = True
    assert client.asked.wait(60)
    one.leader.close()
    client.answer.set()
    _until(lambda: "lease" not in {thread.name for thread in threading.enumerate()})
    assert not one.may_write
    assert not one.leader.leading
    assert one.said == ([True] if leads else [])


def test_a_fence_that_was_closed_opens_for_no_answer() -> None:
    """What a leader's thread does just before it hears of the end."""
    fence = Fence(60)
    assert fence.begin(time.monotonic())
    assert fence.check() == 1
    assert fence.close()
    fence.extend(time.monotonic())
    assert not fence.begin(time.monotonic())
    with pytest.raises(NotLeader):
        fence.check()
    assert not fence.close()


def test_each_term_has_its_own_number_and_ends_by_itself() -> None:
    fence = Fence(60)
    numbers = []
    for _ in range(3):
        fence.begin(time.monotonic())
        numbers.append(fence.check())
        fence.end()
        fence.extend(time.monotonic())  # the answer to a renewal of the term that has ended
        with pytest.raises(NotLeader):
            fence.check()
    assert numbers == [1, 2, 3]
    fence.begin(time.monotonic() - 61)
    assert fence.expired
    with pytest.raises(NotLeader):
        fence.check()


def _view(holder: str, duration: float) -> LeaseView:
    return LeaseView("l", "ns", "u", "1", holder, "", 0, duration, {}, None)


@pytest.mark.parametrize(
    ("view", "seconds"),
    [
        (None, 0),
        (_view("", 99), 0),
        (_view("me", 99), 0),
        (_view("other", 20), 20 - 5),
        (_view("other", 1), 15 - 5),
        (_view("other", 0), 15 - 5),
    ],
)
def test_when_a_lease_can_be_taken(view: LeaseView | None, seconds: float) -> None:
    assert free_in(view, 100.0, "me", 15.0, 105.0) == seconds
    assert free_in(view, 100.0, "me", 15.0, 999.0) == 0


def test_a_lease_that_is_refused_again_and_again_is_left_alone_ever_longer() -> None:
    candidacy, pauses = Candidacy(15.0), []
    for _ in range(9):
        candidacy.lost(100.0)
        pauses.append(max(0.0, candidacy.not_before - 100.0))
    assert pauses == pytest.approx([0, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15])
    candidacy.renewed()
    candidacy.not_before = 0.0
    candidacy.lost(100.0)
    assert candidacy.not_before == 0.0


def test_only_several_conflicts_in_a_row_say_that_the_lease_is_not_as_it_is_known() -> None:
    candidacy = Candidacy(15.0)
    assert [candidacy.conflicted() for _ in range(6)] == [False, False, True] * 2
    candidacy.conflicted()
    candidacy.renewed()
    assert [candidacy.conflicted() for _ in range(3)] == [False, False, True]
