"""What can be seen from outside is as the golden files say; goldens.py has how to change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ci.parts import PartsError
from tests.pure.golden.goldens import FILES, differences, everything, remediator_files

NAMES = [str(path.relative_to(FILES)) for path in everything()]


@pytest.fixture(scope="module")
def scenarios(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[str]]]:
    """What the selected scenarios show; several at once, as each mostly waits."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = [call.params.get("name") for call in calls if call is not None]
    files = remediator_files()
    with ThreadPoolExecutor(4) as pool:
        paths = [path for path in files if str(path.relative_to(FILES)) in names]
        yield {str(path.relative_to(FILES)): pool.submit(files[path]) for path in paths}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_as_before(
    name: str, unavailable: Callable[[str], None], scenarios: dict[str, Future[str]]
) -> None:
    path = FILES / name
    try:
        now = scenarios[name].result() if name in scenarios else everything()[path]()
    except PartsError as error:
        unavailable(f"no Helm: {error}")
        raise
    changed = differences(path, now)
    assert not changed, f"\n{changed}"


def test_there_is_no_file_of_something_that_is_gone() -> None:
    files: set[Path] = {path for path in FILES.rglob("*") if path.is_file()}
    assert {str(path.relative_to(FILES)) for path in files} == set(NAMES)
