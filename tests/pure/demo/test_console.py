"""The demo's output in a log: short, complete, with times; without escape codes."""

import io
import os

import pytest

from ci.demo.console import Console
from ci.demo.world import decode


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def console(clock):
    return Console(out=io.StringIO(), clock=clock)


def test_a_step_tells_its_seconds(console, clock):
    with console.step("Install"):
        clock.now = 2.5
    assert console.out.getvalue() == "▸ Install\n  ✓ 2.5 s\n"
    assert console.timings == {"Install": 2.5}


def test_a_failed_step_says_so_and_is_not_timed(console):
    with pytest.raises(RuntimeError), console.step("Install"):
        raise RuntimeError("no")
    assert "✗ failed" in console.out.getvalue()
    assert console.timings == {}


def test_a_log_gets_a_live_line_only_now_and_then(console, clock):
    with console.step("Wait"):
        for second in range(25):
            clock.now = float(second)
            console.live(f"answered {second}")
    lines = [line for line in console.out.getvalue().splitlines() if "answered" in line]
    assert [line.split()[-1] for line in lines] == ["0", "10", "20"]


def test_a_table_sets_numbers_to_the_right(console):
    console.table(["name", "count"], [["a", "5"], ["long", "12"]])
    assert console.out.getvalue().splitlines() == [
        "     name  count",
        "     a         5",
        "     long     12",
    ]


def test_objects_of_a_stream_are_decoded_across_chunks():
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}\n{"b": "\xc3')
    os.write(writing, b'\xa9"}  {"c": 3}')
    os.close(writing)
    assert list(decode(reading)) == [{"a": 1}, {"b": "é"}, {"c": 3}]
    os.close(reading)
