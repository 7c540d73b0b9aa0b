"""`helm verify` of the chart's package, as docs/install.md has it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ci import parts
from ci.release import artefacts
from ci.release.version import ROOT

ADDRESS = "selfheal-test@example.com"


@pytest.fixture(scope="module")
def keyrings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new key: `secret.gpg` for the release, `selfheal.gpg` for its users.

    Its passphrase is in the file `passphrase`.
    """
    folder = tmp_path_factory.mktemp("keys")
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = folder / "home"
    home.mkdir(mode=0o700)

    def gpg(*arguments: str) -> None:
        command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "open"]
        subprocess.run([*command, "--pinentry-mode", "loopback", *arguments], check=True)

    gpg("--quick-generate-key", f"selfheal test <{ADDRESS}>", "rsa2048", "sign", "never")
    gpg("--output", str(folder / "secret.gpg"), "--export-secret-keys", ADDRESS)
    gpg("--output", str(folder / "selfheal.gpg"), "--export", ADDRESS)
    (folder / "passphrase").write_text("open")
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
    return folder


def _verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """The command of the page, in `folder`, with this Helm."""
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^(helm verify .*)$", page, re.MULTILINE)
    _, *arguments = line.split()
    helm = parts.ensure(["helm"])["helm"]
    return subprocess.run(
        [str(helm), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def downloaded(tmp_path: Path, keyrings: Path) -> Path:
    """A folder with a release's signed chart and the public key."""
    signing = artefacts.Signing(ADDRESS, keyrings / "secret.gpg", keyrings / "passphrase")
    package, proof = artefacts.chart(tmp_path, signing)
    assert (package.suffix, proof.name) == (".tgz", f"{package.name}.prov")
    shutil.copy(keyrings / "selfheal.gpg", tmp_path)
    return tmp_path


def test_a_signed_chart_is_verified(downloaded: Path) -> None:
    done = _verify(downloaded)
    assert done.returncode == 0, done.stderr
    assert ADDRESS in done.stdout


def test_a_changed_chart_is_refused(downloaded: Path) -> None:
    [package] = downloaded.glob("*.tgz")
    with tarfile.open(package, "w:gz") as changed:
        changed.add(ROOT / "chart/Chart.yaml", "selfheal/Chart.yaml")
    done = _verify(downloaded)
    assert done.returncode != 0
    assert "sha256 sum does not match" in done.stderr
