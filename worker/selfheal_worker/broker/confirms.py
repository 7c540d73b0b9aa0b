"""A channel in confirm mode: reports the outcome of each publish."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions as amqp

from selfheal_worker.broker.deliveries import Done, Outcome, Publication, Unconfirmed, plain_headers
from selfheal_worker.broker.events import logged

# What pika raises for headers that it cannot write.
UNENCODABLE = (amqp.ShortStringTooLong, amqp.UnsupportedAMQPFieldException, struct.error)


class ConfirmChannel:
    """The publishing side of a channel. For the link's thread."""

    def __init__(self, channel: Any, answered: Callable[[], None]) -> None:
        """answered: called after the broker has answered for one or more publishes."""
        self._channel = channel
        self._answered = answered
        self._unconfirmed: Unconfirmed = Unconfirmed()
        self._abandoned = False
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed)

    def __len__(self) -> int:
        """How many publishes the broker has not answered for."""
        return len(self._unconfirmed)

    @property
    def bytes_waiting(self) -> int:
        """Bytes of their bodies."""
        return self._unconfirmed.size

    def publish(self, publication: Publication, done: Done, *, mandatory: bool = True) -> None:
        """Send; done is called once, with what became of it. Raises pika's `AMQPError`."""
        try:
            self._send(publication, mandatory)
        except UNENCODABLE:
            plain_headers(publication.properties)
            self._send(publication, mandatory)
        self._unconfirmed.add(publication, done)

    def sent(self, publication: Publication, done: Done) -> None:
        """One was sent in another way."""
        self._unconfirmed.add(publication, done)

    def abandon(self) -> list[Done]:
        """Listen to the broker no longer: one that was given up speaks until its close is answered,
        and counts its own tags. Whom to notify that their publishes are lost."""
        self._abandoned = True
        return [waiting.done for waiting in self._unconfirmed.drain()]

    def _send(self, publication: Publication, mandatory: bool) -> None:
        self._channel.basic_publish(
            "", publication.queue, publication.body, publication.properties, mandatory=mandatory
        )

    def _confirmed(self, frame: Any) -> None:
        if not self._abandoned:
            logged(self._report, frame.method)
            self._answered()

    def _report(self, method: Any) -> None:
        took = isinstance(method, pika.spec.Basic.Ack)
        for one in self._unconfirmed.settled(method):
            if one.returned:
                one.done(Outcome.RETURNED)
            else:
                one.done(Outcome.CONFIRMED if took else Outcome.REFUSED)

    def _returned(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        if not self._abandoned:
            self._unconfirmed.returned(method, body)
