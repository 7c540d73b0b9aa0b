"""The subscription to the queue: there exactly while messages are wanted."""

from __future__ import annotations

from selfheal_worker.broker import Link


class Consumer:
    """For the link's thread. prefetch: messages that the broker sends at a time."""

    def __init__(self, link: Link, prefetch: int) -> None:
        self._link = link
        self._prefetch = prefetch
        #: Whether it was cancelled and messages may still come.
        self.cancelling = False

    def update(self, *, wanted: bool, in_flight: int) -> None:
        """Subscribe or cancel, as wanted.

        The broker's prefetch is of each consumer: a new one brings messages beside those that are
        still worked on, so it waits until some of them are done.
        """
        if wanted and not self.cancelling:
            if in_flight < self._prefetch:
                self._link.consume()
        elif self._link.subscribed and not wanted:
            self.cancelling = True
            self._link.cancel()

    def ended(self) -> None:
        """No message comes any more: it is cancelled, or the connection is lost."""
        self.cancelling = False
