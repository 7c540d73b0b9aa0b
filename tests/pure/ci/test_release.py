"""One version everywhere, other images as they are tested, and licences that may be used."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ci.release import artefacts, version
from ci.release.__main__ import main
from ci.release.version import ROOT, ReleaseError
from ci.versions import pin

VALUES = yaml.safe_load((ROOT / "chart/values.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that name the version, to be changed."""
    for name in {place.path for place in version.PLACES} | {"CHANGELOG.md"}:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path


def test_every_place_names_the_version_of_pyproject() -> None:
    assert list(version.differences()) == []


@pytest.mark.parametrize("place", version.PLACES, ids=str)
def test_a_place_that_was_forgotten_is_named(copy: Path, place: version.Place) -> None:
    place.write(copy, "9.9.9")
    said = list(version.differences(copy))
    assert any("9.9.9" in sentence for sentence in said)
    assert any(place.path in sentence for sentence in said) or place.path == "pyproject.toml"


def test_a_new_version_is_written_everywhere_but_the_changelog(copy: Path) -> None:
    version.change("1.2.3-rc.1", copy)
    was = version.current()
    assert list(version.differences(copy)) == [
        f"CHANGELOG.md begins with {was}, not with 1.2.3-rc.1"
    ]


@pytest.mark.parametrize("text", ["", "1.2", "v1.2.3", "1.2.3+x", "1.2.3\n", "1.2.3-RC"])
def test_what_is_no_version_is_refused(copy: Path, text: str) -> None:
    with pytest.raises(ReleaseError, match="allowed"):
        version.change(text, copy)
    assert list(version.differences(copy)) == []


def test_our_images_follow_the_chart_s_version() -> None:
    for component in ("worker", "remediator"):
        assert VALUES[component]["image"]["repository"] == f"selfheal-{component}"
        assert VALUES[component]["image"]["tag"] == ""


def test_other_images_are_the_versions_that_the_tests_build() -> None:
    tags = {
        name: VALUES[name]["image"]["tag"] for name in ("rabbitmq", "ollama", "nodeProblemDetector")
    }
    assert tags["rabbitmq"].startswith(f"{pin('debian', 'rabbitmq')}.")
    assert f"v{tags['ollama']}" == pin("go", "ollama")
    assert tags["nodeProblemDetector"] == pin("go", "node-problem-detector")


def test_an_archive_is_renamed_and_nothing_else(tmp_path: Path) -> None:
    old = tmp_path / "old.tar"
    manifest = [{"Config": "c.json", "RepoTags": ["localhost/x:1"], "Layers": ["a.tar"]}]
    files = {
        "a.tar": b"layer",
        "manifest.json": json.dumps(manifest).encode(),
        "repositories": b"{}",
    }
    with tarfile.open(old, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), 7
            tar.addfile(entry, io.BytesIO(content))
    new = io.BytesIO()
    artefacts.rename(old, "selfheal-worker:0.1.0", new)
    with tarfile.open(fileobj=io.BytesIO(new.getvalue())) as tar:
        assert tar.getnames() == ["a.tar", "manifest.json"]
        assert tar.extractfile("a.tar").read() == b"layer"  # type: ignore[union-attr]
        [about] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert about == {**manifest[0], "RepoTags": ["selfheal-worker:0.1.0"]}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the builders write instead of building: the content of each file by its name."""
    content = {"selfheal-1.whl": "w", "selfheal-1.tgz": "c"}

    def write(name: str) -> Callable[..., Path]:
        def builder(folder: Path) -> Path:
            (folder / name).write_text(content[name])
            return folder / name

        return builder

    def chart(folder: Path, _signing: artefacts.Signing | None) -> list[Path]:
        return [write("selfheal-1.tgz")(folder)]

    monkeypatch.setattr(artefacts, "IMAGES", ())
    monkeypatch.setattr(artefacts, "wheel", write("selfheal-1.whl"))
    monkeypatch.setattr(artefacts, "chart", chart)
    return content


def test_a_release_takes_the_place_of_the_one_before(tmp_path: Path, made: dict[str, str]) -> None:
    folder = tmp_path / "new" / "dist"
    for content in ("first", "second"):
        made["selfheal-1.whl"] = content
        files = artefacts.build("1", folder)
        assert sorted(files) == sorted(folder.iterdir())
        assert (folder / "selfheal-1.whl").read_text() == content
        assert [one.name for one in folder.parent.iterdir()] == ["dist"]


def test_a_build_that_fails_leaves_the_one_before(tmp_path: Path, made: dict[str, str]) -> None:
    before = sorted(artefacts.build("1", tmp_path / "dist"))
    del made["selfheal-1.tgz"]
    with pytest.raises(KeyError):
        artefacts.build("1", tmp_path / "dist")
    assert sorted((tmp_path / "dist").iterdir()) == before
    assert [one.name for one in tmp_path.iterdir()] == ["dist"]


@pytest.mark.parametrize("kept", ["thesis.txt", "data/thesis.txt"])
@pytest.mark.parametrize("beside_a_release", [False, True])
@pytest.mark.usefixtures("made")
def test_a_folder_with_something_else_is_refused(
    tmp_path: Path, kept: str, beside_a_release: bool
) -> None:
    if beside_a_release:
        artefacts.build("1", tmp_path)
    (tmp_path / kept).parent.mkdir(exist_ok=True)
    (tmp_path / kept).write_text("years of work")
    with pytest.raises(ReleaseError, match=kept.split("/")[0]):
        artefacts.build("1", tmp_path)
    assert (tmp_path / kept).read_text() == "years of work"


@pytest.mark.parametrize("given", [["--key", "a@example.com"], ["--keyring", "ring.gpg"]])
def test_a_key_without_its_file_is_refused(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["build", *given])
    assert "--key and --keyring are given together" in capsys.readouterr().err


def test_the_licence_is_apache_2_and_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.split("\n", 2)[1].strip() == "Apache License"
    assert "END OF TERMS AND CONDITIONS" in text


#: What may be in an image of ours; MPL and LGPL are used as they come, unchanged.
PERMISSIVE = re.compile(
    r"apache|mit\b|bsd|isc|psf|python software|mozilla|mpl|unlicense|public domain", re.I
)
_COPYLEFT = re.compile(r"\bA?GPL|affero|general public", re.I)


@pytest.mark.parametrize("name", [*artefacts.IMAGES, "worker-providers"])
def test_every_package_in_an_image_may_be_given_away(name: str) -> None:
    locked = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", locked, re.MULTILINE)
    assert len(names) > 10
    licences = {name: _licence(name) for name in names}
    refused = {n: text for n, text in licences.items() if text and not _may_be_used(text)}
    assert refused == {}


def _licence(name: str) -> str:
    """What the package says of itself; "" for one that is for another platform."""
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    [expression, *_] = about.get_all("License-Expression") or [""]
    [text, *_] = about.get_all("License") or [""]
    said: str = expression or "; ".join(classifiers) or text
    return said or "says nothing"


def _may_be_used(text: str) -> bool:
    return bool(PERMISSIVE.search(text)) and not _COPYLEFT.search(text)
