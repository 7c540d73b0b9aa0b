"""A change of a node on its way: what must not be sent any more, though it was decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_requests import Attempt, NodeRequests
from selfheal_remediator.failures import NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.lease import PAUSE_KEY, STOP_KEY
from selfheal_remediator.kube.objects import DRAIN_KEY, Node, node_from_json
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.kube.store import Change
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.planner import Planner
from tests.pure.remediator.builders import NOW, OWNER, config, datetime_text, node, rule

RAW: Mapping[str, Any] = {
    "metadata": {"name": "n", "uid": "u", "resourceVersion": "2", "annotations": {}},
    "spec": {},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Fault", "status": "True", "lastHeartbeatTime": datetime_text(NOW)},
        ]
    },
}

#: A window that is not open NOW.
WINDOW: Mapping[str, Any] = {
    "maintenanceWindows": [
        {"start": f"{datetime.fromtimestamp(NOW + 7200, UTC):%H:%M}", "duration": "1h"}
    ]
}


class Api:
    """Refuses the first patch as a conflict. `meanwhile` happens while the node is read then,
    `at_last` after all checks, while the second patch waits for its turn."""

    def __init__(self, authority: Authority) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.at_last: Callable[[], None] = lambda: None
        self.dry_run = False
        self.sent = 0
        self.raw = RAW
        self._authority = authority

    def fence(self) -> object:
        return self._authority.term, self._authority.stops

    def node(self, name: str) -> Mapping[str, Any]:
        self.meanwhile()
        return self.raw

    def patch_node(self, name: str, patch: object, *, dry_run: bool, begun: object) -> Answer:
        if self.sent:
            self.at_last()
        if self.fence() != begun:
            raise NotLeader
        self.sent += 1
        return Answer(422, b"") if self.sent == 1 else Answer(200, b"", None, dict(RAW))


class Outcomes:
    """What became of the change."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def settled(self, action: Action, node: Node) -> None:
        self.known.append("settled")

    def not_sent(self, action: Action) -> None:
        self.known.append("not sent")

    def dropped(self, action: Action, node: Node) -> None:
        self.known.append("dropped")


def nothing(_: Authority, __: Api) -> None:
    pass


def another_term(authority: Authority, _: Api) -> None:
    authority.begin_term(leading=False)
    authority.begin_term(leading=True)
    authority.comes_first("")


def another_remediator(authority: Authority, _: Api) -> None:
    authority.comes_first("there/remediator")


def a_pause(authority: Authority, _: Api) -> None:
    authority.read_pause({PAUSE_KEY: "maintenance"})


def an_uninstall(authority: Authority, _: Api) -> None:
    authority.read_stop({STOP_KEY: time_text(NOW + 60)}, NOW)


def another_mode(_: Authority, api: Api) -> None:
    api.dry_run = True


@pytest.mark.parametrize(
    ("happens", "sent", "outcome"),
    [
        (nothing, 2, "settled"),
        (another_term, 1, "not sent"),
        (another_remediator, 1, "not sent"),
        (a_pause, 1, "not sent"),
        (an_uninstall, 1, "not sent"),
        (another_mode, 1, "not sent"),
    ],
)
def test_a_change_is_not_sent_after_what_ended_its_right_while_the_node_was_read(
    happens: Callable[[Authority, Api], None], sent: int, outcome: str
) -> None:
    authority, outcomes = Authority(leading=True, first=""), Outcomes()
    api = Api(authority)
    api.meanwhile = lambda: happens(authority, api)
    _change(api, authority, outcomes)
    assert (api.sent, outcomes.known) == (sent, [outcome])


@pytest.mark.parametrize("happens", [another_term, another_remediator, a_pause, an_uninstall])
def test_a_change_is_not_sent_after_what_ended_its_right_once_it_was_checked(
    happens: Callable[[Authority, Api], None],
) -> None:
    authority, outcomes = Authority(leading=True, first=""), Outcomes()
    api = Api(authority)
    api.at_last = lambda: happens(authority, api)
    _change(api, authority, outcomes)
    assert (api.sent, outcomes.known) == (1, ["not sent"])


@pytest.mark.parametrize(
    ("group", "sent", "outcome"),
    [
        ({}, 2, "settled"),
        ({"mode": "observe"}, 1, "dropped"),
        (WINDOW, 2, "settled"),
        ({**WINDOW, "outsideWindows": {"cordon": "wait"}}, 1, "dropped"),
    ],
)
def test_a_requested_drain_is_not_begun_on_a_node_that_came_into_a_group_that_waits(
    group: dict[str, Any], sent: int, outcome: str
) -> None:
    authority, outcomes = Authority(leading=True, first=""), Outcomes()
    api = Api(authority)
    requested = {**RAW["metadata"], "annotations": {DRAIN_KEY: "update"}}
    api.raw = {**RAW, "metadata": {**requested, "labels": {"pool": "a"}}}
    about = {"name": "a", "nodeSelector": {"matchLabels": {"pool": "a"}}, **group}
    settings = config(rule(), groups=[about], limits={"maxUnavailable": "100%", "maxDraining": 0})
    _change(api, authority, outcomes, settings, {**RAW, "metadata": requested})
    assert (api.sent, outcomes.known) == (sent, [outcome])


def _change(
    api: Api,
    authority: Authority,
    outcomes: Outcomes,
    settings: Config | None = None,
    known: Mapping[str, Any] = RAW,
) -> None:
    """A cordon as the planner decides it, sent."""
    settings = settings or config(rule(action="cordon"), limits={"maxUnavailable": "100%"})
    planner = Planner(settings, OWNER, NOW)
    planner.apply(Change("n", None, node_from_json(dict(known))), NOW)
    planner.apply(Change("other", None, node("other")), NOW)
    (action,) = planner.plan(NOW).actions
    assert action.kind is Kind.CORDON
    requests = NodeRequests(
        cast(KubernetesApi, api),
        planner,
        authority,
        Mode(settings, NOW),
        lambda job: job(),
        cast(Any, outcomes),
        lambda: NOW,
    )
    entry = planner.entries[action.uid]
    scope = planner.scope()
    requests.change(Attempt(action, scope, entry.node, entry.history, authority.term))
