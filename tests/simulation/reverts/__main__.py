"""python -m tests.simulation.reverts --side worker: how many seeds find a fix that is undone.

Each patch in `reverts/SIDE/` undoes one fix of the product as it is today. It is applied to a copy
of the product in a temporary folder, and seeds run until one fails. A patch that no longer applies
is an error: the code around it changed, and the patch must too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.simulation.__main__ import HASH_SEED

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclass(frozen=True)
class Found:
    """How it went with one patch. seed: the first that failed, None where all went well;
    invariants: those that it broke; error: the patch could not be tried; fault: the number of the
    fault that was fixed (R4, W2), empty = the patch is about a rule."""

    patch: str
    seed: int | None = None
    invariants: tuple[str, ...] = ()
    error: str = ""
    fault: str = ""

    def line(self, first: int, seeds: int) -> str:
        """A row of the table."""
        if self.error:
            return f"{self.patch:40} {'error':>6}  {self.error}"
        needed = f"> {seeds}" if self.seed is None else str(self.seed - first + 1)
        return f"{self.patch:40} {needed:>6}  {', '.join(self.invariants) or 'not found'}"


def patches(side: str) -> list[Path]:
    """All of one side."""
    return sorted((HERE / side).glob("*.patch"))


def undone(patch: Path, side: str, folder: Path) -> Path:
    """A copy of the product of one side without a fix. Raises CalledProcessError."""
    shutil.copytree(ROOT / side, folder / side, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        ["git", "apply", "-C1", str(patch)], cwd=folder, check=True, capture_output=True, text=True
    )
    return folder / side


def fault_of(patch: Path) -> str:
    """The number that a patch's first line begins with; empty = none."""
    number = re.match(r"[RW]\d+(?=: )", patch.read_text(encoding="utf-8"))
    return number[0] if number else ""


def tried(patch: Path, side: str, first: int, seeds: int) -> Found:
    """Run seeds until one fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            product = undone(patch, side, Path(folder))
            path = os.pathsep.join((str(product), str(ROOT)))
            ran = subprocess.run(
                [sys.executable, "-m", f"{__package__}.first", side, str(first), str(seeds)],
                env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": HASH_SEED},
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            return Found(patch.stem, error=(error.stderr.strip().splitlines() or ["?"])[-1])
        found = json.loads(ran.stdout.splitlines()[-1])
    return Found(patch.stem, found["seed"], tuple(found["invariants"]), fault=fault_of(patch))


def main() -> int:
    """Print the table; 1 where a patch was not found, or could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.reverts")
    parser.add_argument("--side", choices=("worker", "remediator"), required=True)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--json", type=Path, help="a file that gets one line of JSON a patch")
    parser.add_argument("names", nargs="*", help="of patches, without .patch; all by default")
    given = parser.parse_args()
    wanted = [one for one in patches(given.side) if not given.names or one.stem in given.names]
    sys.stdout.write(f"{'patch':40} {'seeds':>6}  invariants\n")
    missed = 0
    for patch in wanted:
        found = tried(patch, given.side, given.first, given.seeds)
        missed += found.seed is None
        sys.stdout.write(found.line(given.first, given.seeds) + "\n")
        sys.stdout.flush()
        if given.json is not None:
            with given.json.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(found)) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
