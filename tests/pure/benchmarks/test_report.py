"""The page of benchmarks: how something grows, what is reached, and a plot that can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import report
from tests.benchmarks.report import Row


@given(st.floats(-3, 3), st.floats(0.01, 100))
def test_the_exponent_of_a_power_is_found(power: float, factor: float) -> None:
    points = [(x, factor * x**power) for x in (1.0, 10.0, 100.0, 1000.0)]
    assert report.exponent(points) == pytest.approx(power, abs=1e-6)


def test_one_point_does_not_grow() -> None:
    with pytest.raises(ValueError, match="two different x"):
        report.exponent([(2.0, 1.0), (2.0, 3.0)])


@pytest.mark.parametrize(
    ("row", "ratio", "reached"),
    [
        (Row("", "", 95, {"bare": 100, "other": 10}, goal=">=0.9x"), 0.95, True),
        (Row("", "", 85, {"bare": 100}, goal=">=0.9x"), 0.85, False),
        (Row("", "", 1.2, {}, goal="<=1.5"), None, True),
        (Row("", "", 81, {}, goal="<=80"), None, False),
        (Row("", "", 81, {"bare": 90}), 0.9, None),
        (Row("", "", 81, {"bare": 90}, goal="<=80"), 0.9, False),
    ],
)
def test_a_goal_is_of_the_ratio_or_of_the_number(
    row: Row, ratio: float | None, reached: bool | None
) -> None:
    assert row.ratio == (None if ratio is None else pytest.approx(ratio))
    assert row.reached is reached


def test_what_is_not_reached_is_reported() -> None:
    rows = [Row("a", "s", 2.0, {}, goal="<=1.5"), Row("b", "s", 1.0, {"bare": 2.0}, goal="<=1.0x")]
    lines = list(report.table(rows))
    assert "≤1.5, **not reached**" in lines[2]
    assert "| bare 2 | 0.50 |" in lines[3]
    assert "≤1.0 ×, reached" in lines[3]


def test_each_measurement_says_of_which_commit_it_is() -> None:
    kept = {"worker": {"commit": "b", "rates": [1.0]}, "remediator": {"idle": {"commit": "a"}}}
    assert sorted(report.commits(kept)) == ["a", "b"]


points = st.lists(st.tuples(st.floats(0.001, 1e6), st.floats(0.001, 1e6)), min_size=1, max_size=6)


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L", "S"]), min_size=1),
        points,
        min_size=1,
        max_size=3,
    )
)
def test_a_plot_is_well_formed_and_inside_its_frame(series: dict[str, report.Points]) -> None:
    root = ET.fromstring(report.plot("a < b & c", "x", "y", series))
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == sum(len(found) for found in series.values())
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert 0 <= float(circle.attrib["cy"]) <= height


def test_a_page_without_numbers_says_what_to_run() -> None:
    text = "\n".join(report.page({"date": "2026-01-01"}, {}))
    assert text.count("Not measured: ") == 4


def test_what_was_not_run_again_stays() -> None:
    before = {"worker": {"commit": "a"}, "remediator": {"idle": {"x": 1}, "latency": {"x": 1}}}
    now = {"worker": {"commit": "b"}, "remediator": {"latency": {"x": 2}}}
    assert report.together(before, now) == {
        "worker": {"commit": "b"},
        "remediator": {"idle": {"x": 1}, "latency": {"x": 2}},
    }
    assert report.together({}, {}) == {}


def test_the_simulation_has_its_rates_in_the_page() -> None:
    found = {
        "seeds": 60,
        "load_average": 0.5,
        "node_hours_per_s": 12.3,
        "remediator_cpu_s_per_seed": 0.9,
        "messages_per_s": 45.6,
        "worker_cpu_s_per_seed": 0.8,
    }
    text = "\n".join(report.page({"date": "2026-01-01"}, {"simulation": found}))
    assert "| remediator: node-hours in a second | 12.3 node-hours/s |" in text
    assert "| worker: messages in a second | 45.6 messages/s |" in text


def test_the_remediator_s_rows_are_those_that_were_run() -> None:
    def row(**numbers: float) -> dict[str, object]:
        return {"tools": {"bare": numbers, "selfheal": {k: 2 * v for k, v in numbers.items()}}}

    found = {"burst-100": row(after_last_s=1.0, from_first_s=1.0), "idle-1000": row(peak_mib=30)}
    found["burst-500"] = row(after_last_s=5.0, from_first_s=5.0)
    rows = list(report.remediator_rows(found))
    assert [(one.unit, one.ours, one.reached) for one in rows] == [
        ("s", 2.0, False),
        ("s", 10.0, False),
        ("MiB", 60, True),
    ]
    [(what, along, series)] = report.remediator_growth(found)
    assert (what, along) == ("s to all cordoned", "nodes bad at once")
    assert report.exponent(series["selfheal"]) == pytest.approx(1.0)
