"""Checks every 30 s which remediator comes first, and which nodes other systems are changing.

All methods run on the main thread but `_read_claims`, which runs in a thread `worker-lookups`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.claims_reader import Claims, ClaimsReader
from selfheal_remediator.controller.peers import Peers
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.node.external_claims import MACHINE_ANNOTATION
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

#: Seconds between two checks, and before one that failed is made again.
PEERS_EVERY, FIRST_RETRY = 30.0, 2.0


class PeerCheck:
    """See the module. After each check `on_first` gets who comes before us, and why."""

    def __init__(
        self,
        reader: ClaimsReader,
        planner: Planner,
        authority: Authority,
        workers: Workers,
        post: Post,
        clock: Callable[[], float],
    ) -> None:
        self._reader, self._planner, self._authority = reader, planner, authority
        self._workers, self._post, self._clock = workers, post, clock
        self._peers = Peers(planner.owner)
        #: When to check next.
        self.due = 0.0
        self._failures = 0
        #: Checks are numbered: a slow one does not undo a later one.
        self._begun = self._heard = 0
        self.on_first: Callable[[str, str], None] = _nobody_listens

    def check_at_once(self) -> None:
        """A term of leadership begins."""
        self.due = 0.0

    def advance(self, now: float) -> None:
        """Check again when it is time."""
        if now < self.due:
            return
        self.due = now + PEERS_EVERY
        machines_wanted = any(
            MACHINE_ANNOTATION in entry.node.annotations for entry in self._planner.entries.values()
        )
        self._begun += 1
        read = partial(
            self._read_claims, self._begun, self._authority.term, machines_wanted=machines_wanted
        )
        self._workers.submit(read, Purpose.LOOKUPS)

    def _read_claims(self, number: int, term: int, *, machines_wanted: bool) -> None:
        """In a worker."""
        try:
            with supervision.expected(
                "worker", "the check for other remediators", runtime=self._workers.runtime
            ):
                claims = self._reader.read(machines_wanted=machines_wanted)
        except ApiFailure as failure:
            log.warning("the Leases of other remediators cannot be read: %s", failure)
            self._post(self._retry_soon)
        else:
            self._post(partial(self._evaluate, number, term, claims))

    def _retry_soon(self) -> None:
        self._failures += 1
        pause = delay_after(self._failures, first=FIRST_RETRY, longest=PEERS_EVERY)
        self.due = min(self.due, self._clock() + pause)

    def _evaluate(self, number: int, term: int, claims: Claims) -> None:
        if term != self._authority.term or number <= self._heard:
            return
        self._heard, self._failures = number, 0
        self._planner.mark(claims.marks)
        first = self._peers.first(claims.leases, self._clock(), claims.unread)
        self._planner.owners_live(self._peers.live)
        self.on_first(first, self._peers.reason(first) if first else "")


def _nobody_listens(first: str, why: str) -> None:
    """Before somebody listens."""
