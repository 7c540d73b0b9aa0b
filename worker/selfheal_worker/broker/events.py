"""What a `Link` reports, and to whom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from selfheal_worker.broker.deliveries import Delivery, Done, Publication
from selfheal_worker.broker.errors import BrokerError
from selfheal_worker.logs import say

P = ParamSpec("P")
T = TypeVar("T")


class Events(Protocol):
    """What a `Link` reports; all called in its thread."""

    def on_tick(self) -> None:
        """Called each `TICK` seconds, connected or not."""

    def on_up(self) -> None:
        """Connected, the queues are there, and one may publish and consume."""

    def on_down(self, error: BrokerError) -> None:
        """Not connected any more, or still not; all publishes that were under way are LOST."""

    def on_delivery(self, delivery: Delivery) -> None:
        """A message came."""

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        """A message began to come whose body is above the limit, and is not held.

        It is published as this says, with its own body; `on_delivery` follows at its end.
        """

    def on_cancelled(self) -> None:
        """No more messages will come, as was asked for."""


def logged(callback: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call back for pika, which makes a lost connection of an exception and does not log it."""
    try:
        return callback(*arguments, **named)
    except Exception as error:
        say(logging.ERROR, "a callback failed", error=type(error).__name__)
        raise
