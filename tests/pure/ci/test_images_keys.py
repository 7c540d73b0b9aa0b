"""An image's key changes with everything that the image is made of, and with nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.images import inputs, rootfs


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two packages, as small as it can be."""
    for package in ("worker", "remediator"):
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "Dockerfile").write_text("FROM base\n")
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "inner" / "data.json").write_text("{}")
        (tmp_path / "requirements").mkdir(exist_ok=True)
        (tmp_path / "requirements" / f"{package}.txt").write_text("x==1\n")
    (tmp_path / ".dockerignore").write_text("*\n")
    return tmp_path


def key(repository: Path, base: str = "base-1", stage: str = "build-1") -> str:
    return inputs.dockerfile_key(repository, "worker", base, stage)


CHANGES: dict[str, Callable[[Path], object]] = {
    "source": lambda at: (at / "worker/__init__.py").write_text("x = 1\n"),
    "data": lambda at: (at / "worker/inner/data.json").write_text("[]"),
    "new file": lambda at: (at / "worker/new.py").write_text(""),
    "removed file": lambda at: (at / "worker/inner/data.json").unlink(),
    "moved file": lambda at: (at / "worker/inner/data.json").rename(at / "worker/data.json"),
    "executable": lambda at: (at / "worker/inner/data.json").chmod(0o755),
    "dockerfile": lambda at: (at / "worker/Dockerfile").write_text("FROM other\n"),
    "requirements": lambda at: (at / "requirements/worker.txt").write_text("x==2\n"),
    "ignore file": lambda at: (at / ".dockerignore").write_text(""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_what_goes_in_changes_the_key(
    repository: Path, change: Callable[[Path], object]
) -> None:
    before = key(repository)
    change(repository)
    assert key(repository) != before


def test_another_base_changes_the_key(repository: Path) -> None:
    keys = {key(repository), key(repository, base="base-2"), key(repository, stage="build-2")}
    assert len(keys) == 3


UNSEEN: dict[str, Callable[[Path], object]] = {
    "other package": lambda at: (at / "remediator/__init__.py").write_text("x = 1\n"),
    "other requirements": lambda at: (at / "requirements/remediator.txt").write_text("x==2\n"),
    "requirements of a build argument": (
        lambda at: (at / "requirements/worker-providers.txt").write_text("x==2\n")
    ),
    "bytecode": lambda at: shutil.copytree(at / "worker/inner", at / "worker/__pycache__"),
    "times": lambda at: (at / "worker/__init__.py").touch(),
    "readme": lambda at: (at / "README.md").write_text("x"),
}


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN.keys())
def test_a_change_of_what_stays_out_changes_nothing(
    repository: Path, change: Callable[[Path], object]
) -> None:
    before = key(repository)
    change(repository)
    assert key(repository) == before


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_lists_of_facts_share_a_key(one: list[str], other: list[str]) -> None:
    assert (inputs.key_of(*one) == inputs.key_of(*other)) == (one == other)


def test_a_root_file_system_depends_on_its_parent() -> None:
    known = rootfs.recipes()
    changed = known | {"build": rootfs.Recipe("build", "sid")}
    keys = {name: rootfs.key(recipe, known, "x86_64") for name, recipe in known.items()}
    assert rootfs.key(changed["base"], changed, "x86_64") != keys["base"]
    assert rootfs.key(changed["rabbitmq"], changed, "x86_64") == keys["rabbitmq"]
    assert rootfs.key(known["rabbitmq"], known, "aarch64") != keys["rabbitmq"]


def test_an_unknown_root_file_system_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no root file system 'redis'; there are base, build, old"):
        rootfs.path_of("redis")
