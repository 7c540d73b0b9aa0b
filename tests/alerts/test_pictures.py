"""The dashboards as the chart has them, in a real browser, of a sample of all their series."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ci.cluster import ClusterError
from ci.cluster.prometheus import Prometheus
from ci.demo.expected_empty import PANELS
from ci.parts import PartsError
from ci.pictures.__main__ import BOARDS, is_excused, load, watched
from ci.pictures.drawing import Drawn, PicturesError, draw, prepare
from ci.pictures.queries import Answers, Unanswered, ask
from ci.pictures.serving import SAMPLED, sampled

every_board = pytest.mark.parametrize("name", BOARDS)


@pytest.fixture(scope="module")
def page(unavailable: Callable[[str], None]) -> Path:
    try:
        return prepare(lambda _: None)
    except (PicturesError, ClusterError) as error:
        unavailable(f"no page in a browser: {error}")
        raise


@pytest.fixture(scope="module")
def prometheus(unavailable: Callable[[str], None]) -> Iterator[Prometheus]:
    try:
        with sampled() as server:
            yield server
    except PartsError as error:
        unavailable(str(error))


def _panels(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {panel["title"]: panel for panel in board["panels"] if panel["type"] != "row"}


def _drawn(
    page: Path, prometheus: Prometheus, board: dict[str, Any], folder: Path
) -> dict[str, Drawn]:
    answers = ask(prometheus, board, SAMPLED)
    picture = folder / "picture.png"
    found = draw(page, board, answers, SAMPLED, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    return {panel.title: panel for panel in found}


@every_board
def test_each_panel_shows_something(
    page: Path, prometheus: Prometheus, tmp_path: Path, name: str
) -> None:
    board = load(name)
    drawn = _drawn(page, prometheus, board, tmp_path)
    assert list(drawn) == list(_panels(board))
    assert [panel for panel in drawn.values() if panel.empty] == []


@every_board
def test_each_query_of_a_panel_has_a_series_in_the_sample(
    prometheus: Prometheus, name: str
) -> None:
    board = load(name)
    results = ask(prometheus, board, SAMPLED).results
    empty = [
        f"{title} / {target.get('legendFormat', '')}"
        for title, panel in _panels(board).items()
        for target in panel["targets"]
        if not results[panel["id"]][target["refId"]]
    ]
    assert empty == []


def test_a_panel_without_data_is_found(page: Path, prometheus: Prometheus, tmp_path: Path) -> None:
    board = copy.deepcopy(load("model"))
    panels = _panels(board)
    panels["Calls"]["targets"][0]["expr"] = "nothing_of_this_name"
    panels["Load time"]["targets"][0]["expr"] = "0 / (selfheal_worker_ready * 0)"  # NaN
    drawn = _drawn(page, prometheus, board, tmp_path)
    assert {title for title, panel in drawn.items() if panel.empty} == {"Calls", "Load time"}


def test_what_cannot_be_drawn_is_an_error_that_names_it(
    page: Path, prometheus: Prometheus, tmp_path: Path
) -> None:
    board = copy.deepcopy(load("model"))
    _panels(board)["Calls"]["type"] = "heatmap"
    with pytest.raises(PicturesError, match=r"selfheal / Model cannot be drawn: .*heatmap"):
        _drawn(page, prometheus, board, tmp_path)


def test_a_variable_without_a_value_is_an_error_that_names_it(prometheus: Prometheus) -> None:
    board = copy.deepcopy(load("model"))
    [namespace] = [v for v in board["templating"]["list"] if v["name"] == "namespace"]
    namespace["query"]["query"] = "label_values(nothing_of_this_name, namespace)"
    with pytest.raises(Unanswered, match="the variable namespace"):
        ask(prometheus, board, SAMPLED)


def test_a_demo_is_shown_from_its_begin_until_its_last_worker(prometheus: Prometheus) -> None:
    span = watched(prometheus, SAMPLED.end + 600)
    assert span.scrape == SAMPLED.scrape
    assert SAMPLED.start + 600 <= span.start <= SAMPLED.start + 660  # three hours
    assert SAMPLED.end - 60 <= span.end <= SAMPLED.end + 300
    with pytest.raises(PicturesError, match="make demo"):
        watched(prometheus, SAMPLED.start - 3600)


def test_only_a_panel_whose_queries_may_all_be_empty_is_excused() -> None:
    board = load("overview")
    results: dict[int, dict[str, list[Any]]] = {
        panel["id"]: {target["refId"]: [] for target in panel["targets"]}
        for panel in _panels(board).values()
    }
    answers = Answers(results, [])
    excused = {
        title for title in _panels(board) if is_excused(board, title, answers, PANELS.keys())
    }
    assert {"Firing alerts", "Out-of-memory kills", "Throttling"} <= excused
    assert not {"CPU by pod", "Replicas", "Answered"} & excused
