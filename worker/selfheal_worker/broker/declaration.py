"""The declaration of the queues on a connection that lasts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pika.exceptions as amqp

from selfheal_worker.broker.errors import BrokerError, refusal
from selfheal_worker.broker.topology import Queue


class Declaration:
    """Declares queues one after the other; a user who may not is content when they are there.

    On a channel of its own, because a refusal closes it. For the link's thread. done is called
    once, unless the connection is lost meanwhile.
    """

    def __init__(
        self, connection: Any, queues: Sequence[Queue], done: Callable[[BrokerError | None], None]
    ) -> None:
        self._connection = connection
        self._left = deque(queues)
        self._passive = False
        self._done: Callable[[BrokerError | None], None] | None = done
        self._open()

    def _open(self) -> None:
        self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        self._next()

    def _next(self) -> None:
        if not self._left:
            self._finish(None)
            self._channel.close()
            return
        queue = self._left[0]
        self._channel.queue_declare(
            queue.name,
            passive=self._passive,
            durable=True,
            arguments=dict(queue.arguments),
            callback=self._declared,
        )

    def _declared(self, _: Any) -> None:
        self._left.popleft()
        self._next()

    def _closed(self, _: Any, error: Any) -> None:
        forbidden = isinstance(error, amqp.ChannelClosed) and error.reply_code == 403
        if self._left and forbidden and not self._passive:
            self._passive = True
            self._open()
            return
        self._finish(refusal(self._left[0] if self._left else None, error))

    def _finish(self, error: BrokerError | None) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            done(error)
