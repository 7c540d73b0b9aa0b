"""When nodes were cordoned, also of those that are gone: what the pace goes by. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from selfheal_remediator.node.annotation import State

#: A node (uid) and the whole second in which it was cordoned.
_Cordon = tuple[str, int]


class CordonTimes:
    """Of a node that is gone nothing is kept but its cordons, and by those its group.

    known_from: cordons from before this moment are not known, as an annotation keeps them for the
    flap window only.
    """

    def __init__(self, known_from: float) -> None:
        self.known_from = known_from
        #: Cordons by us, or as the nodes' annotations say -> when.
        self._times: dict[_Cordon, float] = {}
        #: Those of them that were only a dry run.
        self._dry_runs: set[_Cordon] = set()
        #: The group of each node (uid) that is in one, and those of them that are gone.
        self._group_of: dict[str, str] = {}
        self._gone: set[str] = set()

    def note(self, uid: str, now: float, *, dry_run: bool) -> None:
        """The node is cordoned now."""
        key = (uid, int(now))
        self._times[key] = now
        if dry_run:
            self._dry_runs.add(key)

    def not_made(self, uid: str, second: int) -> None:
        """The node was not cordoned after all: other nodes do not wait because of it."""
        self._times.pop((uid, second), None)

    def take(self, uid: str, state: State | None, now: float) -> None:
        """When the node was cordoned, as its annotation says.

        A predecessor wrote it by its own clock: what is still to come counts as of now, or one
        node's annotation would keep all others in service until then.
        """
        for second in state.cordons if state is not None else ():
            self._times.setdefault((uid, second), min(float(second), now))

    def forget_dry_runs(self) -> None:
        """What was only a dry run does not count for the cordons that are made."""
        for key in self._dry_runs:
            self._times.pop(key, None)
        self._dry_runs.clear()

    def grouped(self, uid: str, group: str) -> None:
        """The node is in this group, empty = in none: then its cordons stay those of the last."""
        self._gone.discard(uid)  # etcd may have been restored
        if group:
            self._group_of[uid] = group

    def node_gone(self, uid: str) -> None:
        """The node was deleted."""
        if uid in self._group_of:
            self._gone.add(uid)

    def drop(self, oldest: float) -> None:
        """Forget cordons from before this moment, and what was kept for them."""
        self._times = {key: moment for key, moment in self._times.items() if moment >= oldest}
        self._dry_runs &= self._times.keys()
        if self._gone:
            cordoned = {uid for uid, _ in self._times}
            for uid in self._gone - cordoned:
                self._group_of.pop(uid, None)
            self._gone &= cordoned

    @property
    def all(self) -> Iterable[float]:
        """When nodes were cordoned."""
        return self._times.values()

    def of_group(self, name: str) -> Iterator[float]:
        """When nodes of the group were; one whose group is not known counts in each."""
        for (uid, _), moment in self._times.items():
            if self._group_of.get(uid, name) == name:
                yield moment
