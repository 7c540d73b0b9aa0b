"""Whether an accepted eviction deletes its pod, and when it is retried if not. Pure.

The API server answers 201 once the request passed admission. A webhook that changes the request
(into a dry run, say) makes it answer so although nothing is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.backoff import delay_after

#: Seconds after which an accepted pod that the watch does not show as deleted is read.
CHECK_AFTER = 5.0
#: Seconds until the next read after one that failed, and after one that showed the deletion.
CHECK_AGAIN = 30.0
#: Seconds until an eviction without effect is retried: first, and longest.
FIRST_RETRY, LONGEST_RETRY = 10.0, 300.0
NOT_DELETED = (
    "the API server accepted the eviction, but the pod is not deleted: "
    "probably an admission webhook changed the request"
)


@dataclass(slots=True)
class DeletionCheck:
    """The check of one pod. ignored: how many evictions in a row had no effect."""

    check_at: float | None = None
    ignored: int = 0
    since: float = 0.0

    def accepted(self, now: float) -> None:
        """An eviction was accepted; the watch shows what comes of it, as a rule at once."""
        self.check_at = now + CHECK_AFTER

    def begin_read(self) -> None:
        """The pod is being read."""
        self.check_at = None

    def deleted(self, now: float) -> None:
        """It is on its way or gone (or could not be read): the watch is behind."""
        self.check_at = now + CHECK_AGAIN

    def not_deleted(self, now: float) -> float:
        """The same pod exists and is not being deleted; returns when to evict it again."""
        self.ignored += 1
        if self.ignored == 1:
            self.since = now
        return now + delay_after(self.ignored, first=FIRST_RETRY, longest=LONGEST_RETRY)
