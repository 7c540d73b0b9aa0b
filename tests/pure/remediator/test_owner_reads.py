"""When owners are read: at once, soon after a change, and ever later while reads fail."""

from selfheal_remediator.healing.owner_reads import LONGEST_RETRY, SOON, OwnerReads
from tests.pure.remediator.healing_world import NOW, watched


def _reads() -> OwnerReads:
    return OwnerReads(spread=lambda: 0.0)


def _fail(reads: OwnerReads, times: int, now: float) -> list[float]:
    delays = []
    for _ in range(times):
        assert [pod.owner_uid for pod in reads.due(now)] == ["rs-web"]
        delays.append(reads.failed("rs-web", now))
        assert reads.due(now) == []
        now += delays[-1]
    return delays


def test_reads_that_fail_are_repeated_ever_later_up_to_a_limit() -> None:
    reads = _reads()
    reads.needed(watched("a"), NOW)
    delays = _fail(reads, 9, NOW)
    assert delays[:4] == [5.0, 10.0, 20.0, 40.0]
    assert delays[-1] == LONGEST_RETRY


def test_neither_pods_that_come_and_go_nor_evaluations_shorten_the_wait() -> None:
    reads = _reads()
    reads.needed(watched("a"), NOW)
    [*_, delay] = _fail(reads, 4, NOW)
    begun = NOW + 5 + 10 + 20
    for number in range(30):
        reads.changed(watched(f"b{number}"), begun + number)
        reads.needed(watched(f"b{number}"), begun + number)
        assert reads.due(begun + number) == []
    assert reads.wake == begun + delay


def test_no_owner_waits_for_another() -> None:
    reads = _reads()
    reads.needed(watched("a"), NOW)
    _fail(reads, 6, NOW)
    reads.needed(watched("z", owner_uid="other"), NOW + 400)
    assert "other" in [pod.owner_uid for pod in reads.due(NOW + 400)]


def test_an_answer_ends_the_back_off_and_a_change_is_read_soon() -> None:
    reads = _reads()
    reads.needed(watched("a"), NOW)
    _fail(reads, 3, NOW)
    assert reads.due(NOW + 99)
    reads.done("rs-web", NOW + 600)
    assert reads.failures("rs-web") == 0
    assert reads.wake == NOW + 600
    reads.changed(watched("b"), NOW + 100)
    assert reads.wake == NOW + 100 + SOON
    [pod] = reads.due(NOW + 103)
    assert pod.name == "b"


def test_a_change_while_it_is_read_is_read_again() -> None:
    reads = _reads()
    reads.needed(watched("a"), NOW)
    assert reads.due(NOW)
    reads.changed(watched("b"), NOW)
    assert (reads.due(NOW + 9), reads.wake) == ([], None)
    reads.done("rs-web", NOW + 600)
    assert len(reads.due(NOW + 9)) == 1


def test_an_owner_that_is_gone_is_forgotten() -> None:
    reads = _reads()
    reads.needed(watched("a"), NOW)
    assert reads.due(NOW)
    reads.forget("rs-web")
    assert reads.failed("rs-web", NOW) == 0.0
    assert (reads.wake, reads.due(NOW + 999)) == (None, [])
