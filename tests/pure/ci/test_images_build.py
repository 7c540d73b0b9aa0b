"""When images are built, with a plan whose making the tests hold in hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ci.images import ImagesError, build, catalog, tools
from ci.images.catalog import Plan, Ready
from ci.parts.progress import Doing


@dataclass
class Workshop:
    """One image, `thing`, of which the tests say what its sources are and how its making goes."""

    sources: str = "one"
    made: list[str] = field(default_factory=list)
    during: Callable[[Path], object] = lambda _: None

    def plan(self, name: str) -> Plan:
        if name != "thing":
            raise ValueError(f"no image {name!r}")
        return Plan("thing", "1", self.sources, self._make)

    def _make(self, target: Path, _ref: str, _ready: Ready) -> None:
        self.made.append(self.sources)
        target.write_text(self.sources)
        self.during(target)


class Silent:
    """Progress that nobody sees."""

    @contextmanager
    def working(
        self, part: str, number: int = 1, total: int = 1, doing: Doing = "building"
    ) -> Iterator[None]:
        yield


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workshop:
    made = Workshop()
    monkeypatch.setenv("SELFHEAL_CACHE", str(tmp_path))
    monkeypatch.setattr(catalog, "plan", made.plan)
    monkeypatch.setattr(tools, "need_root", lambda what: None)
    return made


def ensure() -> build.Image:
    return build.ensure(["thing"], Silent())["thing"]


def archives(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "images").iterdir())


def test_an_image_is_made_once_for_what_it_consists_of(workshop: Workshop) -> None:
    first = ensure()
    assert ensure() == first
    assert workshop.made == ["one"]
    assert first.ref == "localhost/selfheal/thing:1"
    assert first.archive.read_text() == "one"
    assert first.size_bytes == 3
    workshop.sources = "two"
    assert ensure().archive.read_text() == "two"
    workshop.sources = "one"
    assert ensure() == first
    assert workshop.made == ["one", "two"]


def test_sources_saved_during_the_build_are_built_again_under_their_own_key(
    workshop: Workshop, tmp_path: Path
) -> None:
    def save_once(_: Path) -> None:
        workshop.sources = "new"

    workshop.during = save_once
    assert ensure().archive.name == "thing-new.tar"
    assert workshop.made == ["one", "new"]
    assert archives(tmp_path) == ["thing-new.tar", "thing.lock"]


def test_sources_that_never_rest_end_the_build(workshop: Workshop, tmp_path: Path) -> None:
    def save(_: Path) -> None:
        workshop.sources += "x"

    workshop.during = save
    with pytest.raises(ImagesError, match="the sources of thing changed during each of 3 builds"):
        ensure()
    assert archives(tmp_path) == ["thing.lock"]


def test_a_failed_build_leaves_nothing(workshop: Workshop, tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise OSError("No space left on device")

    workshop.during = fail
    with pytest.raises(OSError, match="No space left"):
        ensure()
    assert archives(tmp_path) == ["thing.lock"]


def test_three_archives_of_a_name_are_kept_and_use_counts(
    workshop: Workshop, tmp_path: Path
) -> None:
    for sources in ("one", "two", "three", "one", "four"):
        workshop.sources = sources
        ensure()
    kept = ["thing-four.tar", "thing-one.tar", "thing-three.tar", "thing.lock"]
    assert archives(tmp_path) == kept


def test_another_user_than_root_may_use_what_is_built(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ensure()

    def refuse(what: str) -> None:
        raise tools.MissingTools(f"{what} needs root")

    monkeypatch.setattr(tools, "need_root", refuse)
    assert ensure() == made
    workshop.sources = "two"
    with pytest.raises(tools.MissingTools, match="building the thing image needs root"):
        ensure()
