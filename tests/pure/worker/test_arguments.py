from __future__ import annotations

import pytest

from selfheal_worker.__main__ import main


@pytest.mark.parametrize(
    "argument", ["--limit=-1", "--older-than=-1d", "--newer-than=nand", "--older-than=soon"]
)
def test_a_number_that_makes_no_sense_does_not_choose_all_dead_letters(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMQP_URI", raising=False)
    monkeypatch.delenv("AMQP_HOST", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["dead-letters", "purge", "--yes", argument])
    assert ended.value.code == 2
    assert f"argument {argument.partition('=')[0]}" in capsys.readouterr().err
