"""Decides whether parts come from their official archives, and gets them from there.

`SELFHEAL_PARTS` is `auto` (the default: official where a checksum is pinned and the host answers,
else built from source), `official` (never built where a checksum is pinned) or `source`.
"""

import os
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal, cast, get_args

from ci.parts import https, unpack
from ci.parts.archives import Archive, usable
from ci.parts.errors import PartsError, Refused, Unreachable
from ci.parts.registry import Image

Setting = Literal["auto", "official", "source"]

_HINT = "  SELFHEAL_PARTS=source builds from source instead."
ANSWER_SECONDS = 4.0
"""How long a host may take to say that it has something."""
_answers: dict[Archive, PartsError | None] = {}
"""Why an archive cannot be had, or None: asked once in a process."""


def setting() -> Setting:
    """The value of SELFHEAL_PARTS; PartsError for an unknown one."""
    chosen = os.environ.get("SELFHEAL_PARTS") or "auto"
    if chosen not in get_args(Setting):
        raise PartsError(
            f"SELFHEAL_PARTS is {chosen!r}; it must be {', '.join(get_args(Setting))} or unset"
        )
    return cast(Setting, chosen)


def can_be_had(archive: Archive) -> bool:
    """Whether its host has it for us now. Raises Refused for a redirect to anything but HTTPS.

    The first question is put for all archives at once, so that a network that is silent costs its
    few seconds once; then one line on stderr says what is built instead.
    """
    if archive not in _answers:
        _ask_for({archive, *usable()} - _answers.keys())
    answer = _answers[archive]
    if isinstance(answer, Refused):
        raise Refused(f"{answer}\n{_HINT}")
    return answer is None


def _ask_for(archives: Collection[Archive]) -> None:
    found: dict[Archive, PartsError | None] = {}
    # Not a pool: it would wait at the end for a name server that does not answer.
    threads = [
        threading.Thread(target=_ask, args=(archive, found), daemon=True) for archive in archives
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + ANSWER_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    # What is answered later than this is not heard: the decision stays.
    heard = dict(found)
    silent = Unreachable(f"no answer in {ANSWER_SECONDS:.0f} s")
    _answers.update({archive: heard.get(archive, silent) for archive in archives})
    away = sorted({one.host for one in archives if isinstance(_answers[one], Unreachable)})
    if away:
        print(
            f"building from source what cannot be had now from {', '.join(away)}"
            " (SELFHEAL_PARTS=source does not ask)",
            file=sys.stderr,
            flush=True,
        )


def _ask(archive: Archive, found: dict[Archive, PartsError | None]) -> None:
    try:
        if archive.kind == "image":
            Image(archive, ANSWER_SECONDS).manifest(archive.checksum)
        else:
            with https.opened(archive.location, {"Range": "bytes=0-0"}, ANSWER_SECONDS) as answer:
                if answer.status_code not in (200, 206):
                    raise Unreachable(f"HTTP status {answer.status_code}")
    except PartsError as error:
        found[archive] = error
    else:
        found[archive] = None


def fetch(archive: Archive, folder: Path, downloads: Path) -> None:
    """Writes each program of the archive to `folder/<part>`, executable.

    What is downloaded is in `downloads` meanwhile; it stays there only when it broke off, to be
    continued. Raises PartsError: Unreachable, or Refused when anything is not as pinned.
    """
    try:
        downloads.mkdir(exist_ok=True)
        if archive.kind == "image":
            Image(archive).pull(folder, downloads)
        else:
            _download(archive, folder, downloads)
        for part in archive.programs:
            (folder / part).chmod(0o755)
    except Unreachable as error:
        raise Unreachable(
            f"{', '.join(archive.programs)}: {error}\n  The same command continues.\n{_HINT}"
        ) from error
    except Refused as error:
        raise Refused(f"{error}\n  Nothing of it is kept.\n{_HINT}") from error
    except OSError as error:
        raise PartsError(f"cannot write {', '.join(archive.programs)}: {error}") from error


def _download(archive: Archive, folder: Path, downloads: Path) -> None:
    file = downloads / archive.checksum.replace(":", "-")[:40]
    https.download(archive.location, archive.checksum, file)
    try:
        if archive.kind == "file":
            (part,) = archive.programs
            file.rename(folder / part)
            return
        had = unpack.programs(archive.location, file, archive.programs, folder)
    finally:
        file.unlink(missing_ok=True)
    if missing := [path for part, path in archive.programs.items() if part not in had]:
        raise Refused(f"{archive.location} is refused: it does not have {', '.join(missing)}")
