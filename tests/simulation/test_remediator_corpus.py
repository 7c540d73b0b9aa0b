"""What public field reports tell does not happen to the remediator."""

from __future__ import annotations

import pytest

from tests.simulation.remediator import corpus, corpus_of_limits, corpus_of_signals
from tests.simulation.remediator.corpus import Report, run

REPORTS = (*corpus.REPORTS, *corpus_of_signals.REPORTS, *corpus_of_limits.REPORTS)


@pytest.mark.parametrize("report", REPORTS, ids=[one.where for one in REPORTS])
def test_what_was_reported_does_not_happen(report: Report) -> None:
    assert run(report) == [], report.what
