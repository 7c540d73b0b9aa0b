"""When all HealingPolicies are known, where they are listed by namespace."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

from selfheal_remediator.failures import ApiFailure, Expired
from selfheal_remediator.healing.policy_watch import PolicyWatch
from selfheal_remediator.healing.term import Term


class _Source:
    """The policies of one namespace, none, or a refusal; its watch expires at once."""

    def __init__(self, refused: bool) -> None:
        self.refused, self.lists = refused, 0
        self.listed_twice = threading.Event()

    def pages(self) -> Iterator[tuple[list[Any], str]]:
        self.lists += 1
        if self.lists == 3:
            self.listed_twice.set()  # each list is reported before the next one begins
        if self.refused:
            raise ApiFailure(403, "Forbidden", "no")
        yield [], "1"

    def watch(self, version: str, stop: threading.Event) -> Generator[Any, None, None]:
        if version:
            raise Expired(410, "Expired", "too old")
        yield from ()

    def close(self) -> None:
        """Nothing is under way."""


class _Api:
    def __init__(self, **refused: bool) -> None:
        self.sources = {name: _Source(no) for name, no in refused.items()}

    def policies(self, namespace: str) -> _Source:
        return self.sources[namespace]


class _Nothing:
    def end_all(self) -> None:
        """No pods are watched."""


def _watch(post: Callable[[Callable[[], None]], None]) -> PolicyWatch:
    none = cast(Any, _Nothing())
    return PolicyWatch(Term(post), none, none, none, none, lambda _: None, lambda: 0.0)


def test_one_namespace_that_is_listed_twice_does_not_stand_for_another() -> None:
    jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    watch, api = _watch(jobs.put), _Api(one=False, other=True)
    watch.start(cast(Any, api), ("one", "other"), lambda: None)
    assert api.sources["one"].listed_twice.wait(30)
    while not jobs.empty():
        jobs.get()()
    assert not watch.listed
    watch.end()


def test_all_are_known_when_each_namespace_was_listed() -> None:
    jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    watch, api = _watch(jobs.put), _Api(one=False, other=False)
    before = watch.listed
    watch.start(cast(Any, api), ("one", "other"), lambda: None)
    while not watch.listed:
        jobs.get(timeout=30)()
    watch.end()
    assert not before
