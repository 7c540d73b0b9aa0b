"""What is reported of restoring: each thing once. Runs on the main thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.restore.drift import Difference
from selfheal_remediator.restore.engine import Action, Restoring, Task
from selfheal_remediator.restore.errand import Outcome, Result
from selfheal_remediator.restore.live import Live
from selfheal_remediator.restore.release import Kind

log = logging.getLogger(__name__)
_FAILED = {
    Task.RESTORE: "cannot be made again",
    Task.CORRECT: "cannot be corrected",
    Task.RELEASE: "is still owned by its ConfigMap, with which it would be deleted",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """An Event on an object of the release, or on the remediator's Lease (kind None)."""

    reason: str
    text: str
    warning: bool
    kind: Kind | None = None
    name: str = ""
    uid: str = ""


class Notices:
    """See the module."""

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        self._tell = tell
        self._off = ""
        self._drift: dict[str, tuple[Difference, ...]] = {}
        self._failed: dict[str, str] = {}

    def observed(self, restoring: Restoring, drift: Mapping[str, tuple[Difference, ...]]) -> None:
        """What is known now."""
        release = restoring.release
        off = "" if release is None or release.terminating else restoring.off()
        if off and off != self._off:
            log.warning("deleted objects of the release are not restored: %s", off)
            self._tell(Notice("RestoreOff", f"deleted objects are not restored: {off}", True))
        self._off = off
        for key, differences in drift.items():
            live = restoring.live.get(key)
            if live is not None and self._drift.get(key) != differences:
                applied = not all(difference.added for difference in differences)
                self._drifted(live, differences, corrects=restoring.correct and not off and applied)
        self._drift = dict(drift)

    def _drifted(self, live: Live, differences: tuple[Difference, ...], *, corrects: bool) -> None:
        what = "; ".join(difference.text for difference in differences)
        then = (
            "what the release has is set again"
            if corrects
            else "set it in the release's values, or run `helm upgrade` to end it"
        )
        text = f"{live.key} differs from the release: {what}: {then}"
        log.warning("%s", text)
        self._tell(Notice("Drifted", text, True, live.kind, live.name, live.uid))

    def ended(self, action: Action, result: Result) -> None:
        """An action has ended."""
        wanted = action.wanted
        if result.outcome is not Outcome.FAILED:
            self._failed.pop(wanted.key, None)
        if result.outcome is Outcome.OVERTAKEN:
            log.info("%s: nothing is done: %s", wanted.key, result.text)
        elif result.outcome is Outcome.FAILED:
            text = f"{wanted.key} of the release {_FAILED[action.task]}: {result.text}"
            log.warning("%s", text)
            if self._failed.get(wanted.key) != result.text:
                self._failed[wanted.key] = result.text
                self._tell(Notice("RestoreFailed", text, True))
        elif action.task is Task.RELEASE:
            did = "would no longer own" if result.outcome is Outcome.DRY_RUN else "no longer owns"
            log.info("%s has lasted: its ConfigMap %s it", wanted.key, did)
        else:
            self._done(action, result)

    def _done(self, action: Action, result: Result) -> None:
        wanted, dry = action.wanted, result.outcome is Outcome.DRY_RUN
        did = "would be" if dry else "was"
        if action.task is Task.CORRECT:
            reason, text = "Corrected", f"{wanted.key} {did} set to what the release has"
        else:
            since = time_text(action.since)
            reason = "Restored"
            text = f"{wanted.key} was missing since {since} and {did} made again from the release"
        text = ". ".join(part for part in (text, result.text) if part)
        log.warning("%s", text)
        if dry:
            self._tell(Notice(reason, f"dry-run: {text}", True))
        else:
            self._tell(Notice(reason, text, True, wanted.kind, wanted.name, result.uid))
