"""One remediator acts in a cluster: the oldest whose Lease lives."""

from selfheal_remediator.controller.peers import MARGIN, Peers
from selfheal_remediator.kube.lease import LeaseView


def lease(name: str, created: float, renewed: str = "1", holder: str = "pod") -> LeaseView:
    """A Lease of 15 s."""
    return LeaseView(name, "ns", name, "1", holder, renewed, 0, 15.0, {}, created)


MINE = lease("mine", 100)


def test_alone_is_first() -> None:
    assert Peers("ns/mine").first([MINE], 0) == ""


def test_the_older_one_is_first_at_the_first_observation() -> None:
    assert Peers("ns/mine").first([MINE, lease("old", 50)], 0) == "ns/old"
    assert Peers("ns/mine").first([MINE, lease("young", 150)], 0) == ""


def test_two_of_the_same_second_agree_on_one() -> None:
    both = [lease("a", 100), lease("b", 100)]
    assert Peers("ns/a").first(both, 0) == ""
    assert Peers("ns/b").first(both, 0) == "ns/a"


def test_one_that_let_go_does_not_count() -> None:
    assert Peers("ns/mine").first([MINE, lease("old", 50, holder="")], 0) == ""


def test_one_that_stopped_renewing_is_gone_by_our_clock() -> None:
    peers = Peers("ns/mine")
    old = lease("old", 50)
    assert peers.first([MINE, old], 0) == "ns/old"
    assert peers.first([MINE, old], 15 + MARGIN) == "ns/old"
    assert peers.first([MINE, old], 16 + MARGIN) == ""
    assert peers.first([MINE, lease("old", 50, renewed="2")], 17 + MARGIN) == "ns/old"


def test_who_is_there_is_whose_lease_lives_also_while_nobody_holds_it_for_a_moment() -> None:
    peers = Peers("ns/mine")
    others = [lease("young", 150), lease("left", 50, holder="")]
    peers.first([MINE, *others], 0)
    assert peers.live == {"ns/young", "ns/left"}
    peers.first([MINE, lease("young", 150, renewed="2"), others[1]], 16 + MARGIN)
    assert peers.live == {"ns/young"}
    peers.first([MINE], 17 + MARGIN)
    assert peers.live == frozenset()


def test_it_is_reported_how_long_a_lease_without_renewals_keeps_us_from_acting() -> None:
    peers = Peers("ns/mine")
    old = LeaseView("old", "ns", "old", "1", "gone", "1", 0, 2.0**31 - 1, {}, 50)
    assert peers.first([MINE, old], 0) == "ns/old"
    text = peers.reason("ns/old")
    assert "held by gone" in text
    assert "deleted, released or not renewed for 2147483692s" in text
    assert peers.first([MINE, old], 2.0**31 + MARGIN) == ""
