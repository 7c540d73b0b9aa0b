"""One read of VolumeAttachments at a time, and none is heard in another term."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from selfheal_remediator.controller.volume_check import VOLUMES_EVERY, VolumeCheck
from selfheal_remediator.threads.pool import Purpose
from tests.pure.remediator.builders import NOW

Job = Callable[[], None]


class Reads:
    """Reads that hang until the test has them answered; what the planner knows by them."""

    def __init__(self) -> None:
        self.answers: list[Callable[..., None]] = []
        self.attached: dict[str, str] = {}
        planner: Any = SimpleNamespace(attached={}, volumes=self._known)
        workers: Any = SimpleNamespace(submit=self._submit)
        requests: Any = SimpleNamespace(read_attached=lambda _, answer: self.answers.append(answer))
        reporter: Any = SimpleNamespace(of_node=lambda *_, **__: None)
        self.check = VolumeCheck(requests, planner, workers, reporter, lambda: NOW)

    def _submit(self, job: Job, purpose: Purpose) -> None:
        assert purpose is Purpose.LOOKUPS
        job()

    def _known(self, attached: dict[str, Any]) -> None:
        self.attached = {uid: one.text for uid, one in attached.items()}


def test_while_one_hangs_no_other_is_sent() -> None:
    reads = Reads()
    reads.check.begin("uid-n", "n", NOW)
    for turn in range(5):
        reads.check.advance(NOW + turn * VOLUMES_EVERY)
    assert len(reads.answers) == 1
    reads.answers[0]({"uid-n": "csi-1"})
    assert reads.attached == {"uid-n": "csi-1"}
    reads.check.advance(NOW + 5 * VOLUMES_EVERY)
    assert len(reads.answers) == 2


def test_what_was_read_in_another_term_is_not_heard() -> None:
    reads = Reads()
    reads.check.begin("uid-n", "n", NOW)
    reads.check.advance(NOW)
    reads.check.forget()
    reads.check.begin("uid-n", "n", NOW + 1)
    reads.check.advance(NOW + 1)
    reads.answers[1]({"uid-n": "csi-1"})
    reads.answers[0]({"uid-n": ""})  # it is from before the volume was attached
    assert reads.attached == {"uid-n": "csi-1"}
