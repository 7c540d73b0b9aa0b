"""The lasting connection, with a pretended broker that says each thing when the test wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pika
import pytest

from selfheal_worker.broker import Done, Link, Outcome, Publication, new_properties
from selfheal_worker.broker import connection as link
from selfheal_worker.config import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from selfheal_worker.broker import BrokerError, Delivery


class Channel:
    """Keeps what it was given to call, and takes what it is sent without a word."""

    def __init__(self) -> None:
        self.call: dict[str, Callable[..., None]] = {}

    def add_on_close_callback(self, callback: Callable[..., None]) -> None: ...

    def add_on_return_callback(self, callback: Callable[..., None]) -> None:
        self.call["returned"] = callback

    def add_on_cancel_callback(self, callback: Callable[..., None]) -> None:
        self.call["cancelled"] = callback

    def add_callback(self, *_: Any, **__: Any) -> None: ...

    def confirm_delivery(self, callback: Callable[..., None]) -> None:
        self.call["confirmed"] = callback

    def basic_qos(self, prefetch_count: int) -> None: ...

    def basic_publish(self, *_: Any, **__: Any) -> None: ...

    def close(self) -> None: ...

    def confirm(self, tag: int) -> None:
        """Say that all up to this tag arrived."""
        ack = pika.spec.Basic.Ack(tag, multiple=True)
        self.call["confirmed"](pika.frame.Method(1, ack))


class Connection:
    """Open at once; its close is never answered, so that it still speaks."""

    made: list[Connection]

    def __init__(self, _: Any, *, on_open_callback: Any, custom_ioloop: Any, **__: Any) -> None:
        self.made.append(self)
        self.is_open = True
        self.channels: list[Channel] = []
        self.block: Callable[..., None] = lambda *_: None
        custom_ioloop.call_later(0, lambda: on_open_callback(self))
        self._ioloop = custom_ioloop

    def add_on_connection_blocked_callback(self, callback: Callable[..., None]) -> None:
        self.block = callback

    def add_on_connection_unblocked_callback(self, callback: Callable[..., None]) -> None: ...

    def channel(self, on_open_callback: Callable[[Channel], None]) -> None:
        channel = Channel()
        self.channels.append(channel)
        on_open_callback(channel)
        if "confirmed" in channel.call:  # not that of the declaration
            self._ioloop.call_later(0, lambda: channel.confirm(1))

    def close(self) -> None: ...


class Story:
    """Does its next step whenever the link is up, and closes it after the last."""

    def __init__(self, *steps: Callable[[Link], None]) -> None:
        self._steps = list(steps)
        settings = load({"AMQP_URI": "amqp://me:x@broker/"})
        self.link = Link(settings, (), self, randomness=lambda: 0.0)

    def on_up(self) -> None:
        self._steps.pop(0)(self.link)
        if not self._steps:
            Connection.made[-1].is_open = False
            self.link.close(lambda: None)

    def on_tick(self) -> None: ...

    def on_down(self, error: BrokerError) -> None: ...

    def on_cancelled(self) -> None: ...

    def on_delivery(self, delivery: Delivery) -> None: ...

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        raise AssertionError("no message here is that large")


def test_late_events_of_an_old_connection_say_nothing_of_the_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its channel is given up while it is open: it continues confirming until it has closed."""
    Connection.made = []
    monkeypatch.setattr(link, "BufferedConnection", Connection)
    publication = Publication("feedback.results", b"x", new_properties(None))
    told: list[Outcome] = []
    seen: list[object] = []

    def first(up: Link) -> None:
        up.publish(publication, told.append)
        Connection.made[0].channels[-1].call["cancelled"](None)

    def second(up: Link) -> None:
        up.publish(publication, told.append)
        before, now = (connection.channels[-1] for connection in Connection.made)
        back = pika.spec.Basic.Return(routing_key="feedback.results")
        before.call["returned"](before, back, pika.BasicProperties(), b"x")
        before.confirm(2)
        seen.append(list(told))
        Connection.made[0].block(None, None)
        seen.append(up.blocked)
        now.confirm(2)

    Story(first, second).link.run()
    assert seen == [[Outcome.LOST], False]
    assert told == [Outcome.LOST, Outcome.CONFIRMED]
