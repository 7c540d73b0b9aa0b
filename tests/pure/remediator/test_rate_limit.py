"""The client's own rate: paced, and closed for everybody when the server asks for it."""

from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import ApiBudget
from selfheal_remediator.kube.rate_limit import Budget


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(1, 10), st.floats(1, 50))
def test_no_window_holds_more_than_burst_and_rate(
    pauses: list[float], burst: int, rate: float
) -> None:
    clock = Clock()
    budget = Budget(ApiBudget(qps=rate, burst=burst), clock)
    sent = []
    for pause in pauses:
        clock.now += pause
        sent.append(clock.now + max(0.0, budget.reserve()))
    for index, start in enumerate(sent):
        inside = [moment for moment in sent[index:] if moment < start + 1.0]
        assert len(inside) <= burst + rate + 1


def test_a_server_that_asks_for_a_pause_gets_it_from_all_requests() -> None:
    clock = Clock()
    budget = Budget(ApiBudget(), clock)
    assert budget.reserve() <= 0
    budget.close_for(7)
    assert budget.reserve() == 7
    budget.close_for(3)
    assert budget.closed_for == 7
    clock.now += 7
    assert budget.reserve() <= 0


def test_a_server_cannot_ask_for_ever() -> None:
    budget = Budget(ApiBudget(), Clock())
    budget.close_for(1e9)
    assert budget.closed_for == 60
