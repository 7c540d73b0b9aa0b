"""A message comes in: checked, decoded and handed to a handler, or tried alone."""

from __future__ import annotations

import logging
from functools import partial
from random import Random

from selfheal_worker import message
from selfheal_worker.broker import Delivery
from selfheal_worker.config import Settings
from selfheal_worker.dead_letters import REPLAYED
from selfheal_worker.handlers import Handlers, Work
from selfheal_worker.in_flight import InFlight
from selfheal_worker.isolation import Isolation, is_suspect
from selfheal_worker.logs import say
from selfheal_worker.message import Message, PoisonError
from selfheal_worker.metrics import Metrics
from selfheal_worker.randomness import RANDOM, new_id
from selfheal_worker.settlement import Settlement


class Intake:
    """For the link's thread; `_read` of a large body runs in a handler's."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        in_flight: InFlight,
        handlers: Handlers,
        settlement: Settlement,
        random: Random = RANDOM,
    ) -> None:
        """random: for the ids of messages that have none."""
        self._settings = settings
        self._metrics = metrics
        self._in_flight = in_flight
        self._handlers = handlers
        self._settlement = settlement
        self._new_id = partial(new_id, random)
        #: What ended workers, as it seems: nothing else is in flight while one of them is tried.
        self.isolation = Isolation()

    def accept(self, work: Work) -> bool:
        """Have a message analysed; whether it is a suspect instead, which waits for `try_alone`."""
        delivery = work.delivery
        self._observe_wait(work)
        try:
            message.check_size(len(delivery.body), self._settings.max_body_bytes)
            suspect = is_suspect(delivery)
            if suspect or len(delivery.body) > message.LARGE_BODY:
                work.read = partial(self._read, delivery)
            else:
                work.message = self._read(delivery)
        except PoisonError as error:
            self._settlement.poison(work, error)
            return False
        if suspect:
            self.isolation.add(work)
        else:
            self._handlers.submit(work)
        return suspect

    def try_alone(self, *, wanted: bool) -> None:
        """Have the next suspect analysed, once nothing else is in flight; or give all back."""
        if not wanted:
            for work in self.isolation.give_up():
                if not work.settling:
                    self._settlement.requeue(work)
        elif (suspect := self.isolation.next(len(self._in_flight))) is not None:
            say(
                logging.INFO,
                "message was redelivered again and again, and is tried alone",
                message_id=suspect.delivery.message_id,
                bytes=len(suspect.delivery.body),
            )
            self._handlers.submit(suspect)

    def _observe_wait(self, work: Work) -> None:
        published = work.delivery.timestamp
        if published is None or work.attempts or REPLAYED in work.delivery.headers:
            return
        self._metrics.messages.wait.observe(max(0.0, work.received_unix - published))

    def _read(self, delivery: Delivery) -> Message:
        return message.parse(
            delivery.body,
            message_id=delivery.message_id,
            max_text_bytes=self._settings.max_text_bytes,
            fresh_id=self._new_id,
        )
