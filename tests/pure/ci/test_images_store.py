"""What is in the cache is whole, and old things leave it."""

import fcntl
import os
from pathlib import Path

import pytest

from ci.images import ImagesError, store, tools


def _fill_half(final: Path) -> None:
    with store.whole_folder(final) as part:
        (part / "half").write_text("x")
        assert not final.exists()
        raise KeyboardInterrupt


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "thing-1"
    with pytest.raises(KeyboardInterrupt):
        _fill_half(final)
    assert list(tmp_path.iterdir()) == []
    with store.whole_folder(final) as part:
        (part / "all").write_text("x")
    assert [path.name for path in final.iterdir()] == ["all"]


def test_what_a_killed_build_left_does_not_get_into_the_next(tmp_path: Path) -> None:
    (tmp_path / "thing-1.part").mkdir()
    (tmp_path / "thing-1.part" / "stale").write_text("x")
    with store.whole_folder(tmp_path / "thing-1") as part:
        assert list(part.iterdir()) == []


def _write_half(final: Path) -> None:
    with store.whole_file(final) as part:
        part.write_text("half")
        raise OSError("disk full")


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "deeper" / "image.tar"
    with pytest.raises(OSError, match="disk full"):
        _write_half(final)
    assert list(final.parent.iterdir()) == []
    with store.whole_file(final) as part:
        part.write_text("whole")
    assert final.read_text() == "whole"
    assert list(final.parent.iterdir()) == [final]


def test_the_newest_of_a_name_stay(tmp_path: Path) -> None:
    for age, name in enumerate(["app-d", "app-c", "app-b", "app-a", "app-other-x", "app.lock"]):
        path = tmp_path / name
        path.write_text(name)
        os.utime(path, (1000 - age, 1000 - age))
    gone = store.prune_named(tmp_path / "app-a", keep=3)
    assert [path.name for path in gone] == ["app-b"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["app-a", "app-c", "app-d", "app-other-x", "app.lock"]


def test_a_lock_is_held_for_the_block_and_free_after_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with path.open("w") as other:
        with store.locked(path), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_full_disk_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(tools.MissingTools, match=r"the x image needs about 1e\+09 GiB .* free"):
        tools.need_space(tmp_path, 1e9, "the x image")


def test_a_failing_command_says_how_it_ended() -> None:
    with pytest.raises(ImagesError, match=r"(?s)sh failed with status 3:\nto stdout\nto stderr"):
        tools.run(["sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"])


def test_another_user_than_root_learns_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(tools.MissingTools, match=r"needs root: run it with sudo, or .* docker"):
        tools.need_root("building the worker image")
    with pytest.raises(tools.MissingTools, match="missing on this machine: buildah"):
        tools.need({"no-such-program": "buildah"})
