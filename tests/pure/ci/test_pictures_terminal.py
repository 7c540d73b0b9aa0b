"""The picture of a terminal, from a recording of the demo."""

import pytest

from ci.pictures.terminal import draw

_RECORDING = (
    ".venv/bin/python -m ci.demo\r\n"
    "\x1b[1m▸ helm install\x1b[0m\r\n"
    "\x1b[2m     1.0 s  waiting for pods\x1b[0m\r\x1b[K     4.4 s  first worker ready\r\n"
    "\x1b[32mlost 0\x1b[0m\r\n"
    "Script done on 2026-11-30 [COMMAND_EXIT_CODE=0]\r\n"
)


def _text(picture: str) -> str:
    return picture.replace("&#160;", " ")


def test_the_picture_shows_each_line_as_it_stood_at_the_end() -> None:
    shown = _text(draw(_RECORDING))

    assert "▸ helm install" in shown
    assert "4.4 s  first worker ready" in shown
    assert "lost 0" in shown
    assert "waiting for pods" not in shown


def test_what_make_and_script_print_is_left_out() -> None:
    shown = _text(draw(_RECORDING))

    assert "ci.demo" not in shown
    assert "Script done" not in shown


def test_the_picture_asks_no_server_for_fonts() -> None:
    assert "url(http" not in draw(_RECORDING)


def test_a_file_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no recording of a demo"):
        draw("make: *** No rule to make target 'dem'.\n")
