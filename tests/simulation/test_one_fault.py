"""Whatever happens between any two steps of a worker, no message is lost."""

from __future__ import annotations

import pytest

from tests.simulation.worker.one_fault import FAULTS, OneFault

#: Of about 680 steps of a run, those that are tried; each fault begins elsewhere.
_APART = 67


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_any_step_loses_nothing(name: str) -> None:
    step, last = 5 * sorted(FAULTS).index(name), False
    while not last:
        one = OneFault(step, step, FAULTS[name]).run()
        if name == "SIGTERM":
            assert not one.watch.redelivered, "what is requeued costs no delivery"
        step, last = step + _APART, not one.happened
    assert step > 3 * _APART
