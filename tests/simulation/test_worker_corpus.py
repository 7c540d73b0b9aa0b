"""Field reports about queue workers and model servers, as worlds of the simulation."""

from __future__ import annotations

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

from tests.simulation.worker import run
from tests.simulation.worker.corpus import REPORTS, Report


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.where)
def test_what_was_reported_does_not_happen(report: Report) -> None:
    history, problems, _ = run.run(report.world)
    wrong = [*map(str, problems), *report.wrong(history)]
    assert not wrong, "\n".join([report.what, *wrong, *history.story()])
