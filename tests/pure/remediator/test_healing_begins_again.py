"""What starts a policy again that gave up, in each way in which it can give up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from selfheal_remediator.healing.canary import Outcome
from selfheal_remediator.healing.policy import State, policy_from_json
from tests.pure.remediator.healing_world import around
from tests.pure.remediator.test_canary import KEY, KINDS, UNREADY, Story

PAUSED = around(stopped="paused: by a human")


def _used_up() -> Story:
    """One pod stays unhealthy, whatever restarts it: the restarts of an hour are used up."""
    story = Story({**UNREADY, "restart": {"maxPerHour": 1}})
    story.made.break_one("web")
    for _ in range(3700):
        story.run(1)
        youngest = max(story.made.of("web"), key=lambda pod: pod.created)
        if story.evicted and youngest.ready:
            story.made.workers[youngest.uid].broken = True
    assert story.canary is None
    return story


def _failed() -> Story:
    """The canary's replacement is unhealthy too."""
    story = Story()
    story.cure = False
    story.sicken()
    story.run(900)
    return story


def _relapsed() -> Story:
    """The canary passed, and then all pods are unhealthy again."""
    story = Story()
    story.sicken()
    while story.canary is None or story.canary.outcome is not Outcome.PASSED:
        story.run(1)
    story.cure = False
    story.sicken()
    story.run(900)
    return story


GAVE_UP = {"used up": _used_up, "failed": _failed, "relapsed": _relapsed}


def _generation(story: Story) -> None:
    story.made.documents[KEY]["metadata"]["generation"] += 1


def _adopt(story: Story) -> None:
    story.made.healing.adopt(policy_from_json(story.made.documents[KEY]), story.made.now)


def _changed(story: Story) -> None:
    _generation(story)
    _adopt(story)


def _changed_while_nobody_led(story: Story) -> None:
    _generation(story)
    story.made.new_leader()


def _policy_paused_for_a_while(story: Story) -> None:
    for paused in (True, False):
        story.made.documents[KEY]["spec"]["paused"] = paused
        _changed(story)
        story.run(60)


def _rolled_out(story: Story) -> None:
    story.own(lambda name: replace(KINDS["Deployment"], template="next"))


def _rolled_out_while_nobody_led(story: Story) -> None:
    story.made.new_leader()
    _rolled_out(story)


def _pause(story: Story) -> None:
    story.made.around = PAUSED
    story.run(60)


def _resume(story: Story) -> None:
    story.made.around = around()
    story.made.healing.resumed()


def _paused_and_resumed(story: Story) -> None:
    _pause(story)
    _resume(story)


def _resumed_while_nobody_led(story: Story) -> None:
    _pause(story)
    story.made.around = around()
    story.made.new_leader()


def _resumed_after_a_takeover(story: Story) -> None:
    _pause(story)
    story.made.new_leader()
    story.run(60)
    assert story.state is not State.GAVE_UP  # but paused
    _resume(story)


def _paused_once_more_before_it_acts(story: Story) -> None:
    _paused_and_resumed(story)
    _pause(story)
    story.made.around = around()  # what was lifted needs no second command


WAYS: dict[str, Callable[[Story], None]] = {
    "the policy is changed": _changed,
    "the policy is changed while nobody leads": _changed_while_nobody_led,
    "the policy is paused for a while": _policy_paused_for_a_while,
    "a rollout": _rolled_out,
    "a rollout while nobody leads": _rolled_out_while_nobody_led,
    "resume": _paused_and_resumed,
    "resume while nobody leads": _resumed_while_nobody_led,
    "resume after a takeover": _resumed_after_a_takeover,
    "paused once more": _paused_once_more_before_it_acts,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("gave_up", GAVE_UP.values(), ids=GAVE_UP.keys())
def test_it_starts_again(gave_up: Callable[[], Story], way: Callable[[Story], None]) -> None:
    story = gave_up()
    assert story.state is State.GAVE_UP
    before = story.evicted
    way(story)
    story.run(400)
    assert story.evicted == before + 1  # one more try, and not more
    story.run(900)
    assert story.evicted == before + 1
    assert story.state is (State.HEALTHY if gave_up is _used_up else State.GAVE_UP)


@pytest.mark.parametrize("gave_up", GAVE_UP.values(), ids=GAVE_UP.keys())
def test_it_starts_again_after_ten_minutes_of_health(gave_up: Callable[[], Story]) -> None:
    story = gave_up()
    before = story.evicted
    story.cure = True
    for worker in story.made.workers.values():
        worker.broken = False
    story.run(580)
    story.made.break_one("web")
    story.run(120)
    assert story.evicted == before
    for worker in story.made.workers.values():
        worker.broken = False
    story.run(640)
    story.made.break_one("web")
    story.run(120)
    assert story.evicted == before + 1


def _api_server_unhealthy(story: Story) -> None:
    story.made.around = around(stopped="the API server is unhealthy")
    story.run(60)
    story.made.around = around()


def _taken_over(story: Story) -> None:
    story.made.new_leader()


def _taken_over_while_paused(story: Story) -> None:
    _pause(story)
    story.made.new_leader()


def _taken_over_after_resuming_in_vain(story: Story) -> None:
    _taken_over(story)
    _api_server_unhealthy(story)


NO_WAYS: dict[str, Callable[[Story], None]] = {
    "the API server recovers": _api_server_unhealthy,
    "a takeover": _taken_over,
    "a takeover while it is paused": _taken_over_while_paused,
    "both": _taken_over_after_resuming_in_vain,
}


@pytest.mark.parametrize("way", NO_WAYS.values(), ids=NO_WAYS.keys())
@pytest.mark.parametrize("gave_up", GAVE_UP.values(), ids=GAVE_UP.keys())
def test_nothing_else_starts_it_again(
    gave_up: Callable[[], Story], way: Callable[[Story], None]
) -> None:
    story = gave_up()
    before = story.evicted
    way(story)
    story.run(900)
    assert story.evicted == before
