"""The pods of a draining node: which are to go, which stay and why, which have returned. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from selfheal_remediator.drain.eviction import Eviction
from selfheal_remediator.drain.filters import Fate, Sorting, Surroundings, sort_pod
from selfheal_remediator.drain.lookups import Question, questions
from selfheal_remediator.drain.returns import Returns
from selfheal_remediator.kube.pods import Pod


@dataclass(slots=True)
class NodePods:
    """The pods of one node (its name) as the watch reports them, sorted by `around`.

    synced: they were listed. after: the node was empty once, and is watched on.
    """

    node: str
    around: Surroundings
    synced: bool = False
    after: bool = False
    evictions: dict[str, Eviction] = field(default_factory=dict)
    others: dict[str, tuple[Pod, Sorting]] = field(default_factory=dict)
    returns: Returns = field(default_factory=Returns)
    evicted: int = 0
    empty_dirs: int = 0
    #: Pods that returned too often: they are left here for good.
    _left: dict[str, Sorting] = field(default_factory=dict)
    #: The time at the last evaluation: pods that request to stay for a time are sorted by it.
    now: float = float("-inf")

    def changed(self, old: Pod | None, new: Pod | None, *, late: bool = False) -> None:
        """An event of this node's pod watch; late: not shown by the first list."""
        # The watch is of this node's pods: one that does not name its node could not be read.
        if new is None or new.node not in (self.node, ""):
            if old is not None:
                self._gone(old.uid)
            return
        known = self.evictions.get(new.uid)
        sorting = self._left.get(new.uid) or sort_pod(new, self.around, self.now)
        if known is not None and known.returned and sorting.fate is Fate.WAIT:
            sorting = self._not_waited_for(new)
        unclear = bool(questions(new, self.around))
        first = known is None or known.unclear  # what is not clear was not counted yet
        unseen = first and not unclear and new.uid not in self.others and new.deletion is None
        unseen = unseen and not late  # it was here before
        goes = sorting.fate in (Fate.EVICT, Fate.WAIT)
        returned = unseen and goes and self._has_returned(new)
        if returned:
            sorting = self._came_again(new, self._not_waited_for(new))
        if sorting.fate is not Fate.EVICT:
            self.evictions.pop(new.uid, None)
            self.others[new.uid] = (new, sorting)
            return
        _, before = self.others.pop(new.uid, (None, None))
        if known is None:
            item = Eviction(new, sorting, unclear=unclear)
            item.stayed = before is not None and before.fate in (Fate.STAY, Fate.WAIT)
            if before is not None and before.fate is Fate.WAIT:
                # Before its time, where its node is not Ready any more.
                item.waited_until = min(before.until or self.now, self.now)
            self.evictions[new.uid] = item
            self.empty_dirs += new.empty_dir
        else:
            known.pod, known.sorting, known.unclear = new, sorting, unclear
        self.evictions[new.uid].returned |= returned
        if new.deletion is not None:
            self.returns.lost(new)

    def _has_returned(self, pod: Pod) -> bool:
        """Whether its owner put it here past the cordon: after another one of its pods left."""
        known = self.returns.returned_before(pod)
        return self.after or known or (self.synced and self.returns.has_lost(pod))

    def _not_waited_for(self, pod: Pod) -> Sorting:
        """Its fate where its completion is not waited for: only what a drain finds may complete."""
        return sort_pod(pod, replace(self.around, drain_began=float("-inf")), self.now)

    def _came_again(self, pod: Pod, sorting: Sorting) -> Sorting:
        """Its owner put it here despite the cordon; after repeated returns it is left alone."""
        why = self.returns.refused(pod, self.after)
        if not why:
            return sorting
        again = Sorting(Fate.STAY, why)
        self._left[pod.uid] = again
        return again

    def _gone(self, uid: str) -> None:
        self.others.pop(uid, None)
        self._left.pop(uid, None)
        item = self.evictions.pop(uid, None)
        if item is not None:
            self.returns.lost(item.pod)
            self.evicted += 1

    def surroundings_changed(self, around: Surroundings) -> None:
        """Something beside the pods became known: sort them again. When the drain began was known
        before: see `began`."""
        self.began(self.around.drain_began, around)

    def began(self, moment: float, around: Surroundings | None = None) -> None:
        """The drain began then: what its pods' completion is waited for by."""
        self.around = replace(around or self.around, drain_began=moment, ready=self.around.ready)
        for pod in list(self):
            self.changed(pod, pod)

    def node_ready(self, ready: bool, now: float) -> None:
        """Whether the node is Ready from now on."""
        self.around, self.now = replace(self.around, ready=ready), now
        for pod in list(self):
            self.changed(pod, pod)

    def __iter__(self) -> Iterator[Pod]:
        """Those that are to go, then the others."""
        yield from (item.pod for item in self.evictions.values())
        yield from (pod for pod, _ in self.others.values())

    def open_questions(self) -> list[Question]:
        """What has to be read before it is clear what becomes of each pod."""
        return [question for pod in self for question in questions(pod, self.around)]

    def sort_again(self, now: float) -> float | None:
        """Those whose time to stay is over; returns when the next one's is."""
        self.now = now
        timed = [(pod, sorting.until) for pod, sorting in self.others.values()]
        for pod, until in timed:
            if until is not None and until <= now:
                self.changed(pod, pod)
        later = [until for _, until in timed if until is not None and until > now]
        return min(later, default=None)

    @property
    def completing(self) -> tuple[tuple[Pod, Sorting], ...]:
        """Pods whose completion is waited for, each until a time."""
        return tuple(found for found in self.others.values() if found[1].fate is Fate.WAIT)

    @property
    def staying(self) -> tuple[tuple[Pod, str], ...]:
        """Pods that should go but may not, each with the reason."""
        return tuple(
            (pod, sorting.reason)
            for pod, sorting in self.others.values()
            if sorting.fate is Fate.STAY
        )

    @property
    def returned_too_often(self) -> frozenset[str]:
        """Why pods are left here that their owners put here again and again."""
        return frozenset(sorting.reason for sorting in self._left.values())
