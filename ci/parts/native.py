"""What a program that is partly C++ is compiled with: a compiler, headers, and flags."""

import platform
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from ci import pypi
from ci.parts.errors import PartsError
from ci.parts.recipes import (
    BUILD_ENVIRONMENT,
    Native,
    compiler_flags,
    cpu_features,
    header_digest,
)
from ci.versions import pin


def environment(native: Native, folder: Path) -> dict[str, str]:
    """Sees that all is there, installing Debian packages; gives the build's environment.

    Headers are kept below `folder`; the caller holds the lock of the builds. Raises PartsError.
    """
    install(native)
    optimised = compiler_flags(platform.machine(), cpu_features())
    flags = f'{optimised} "-I{_headers(native, folder)}"'
    return {
        **BUILD_ENVIRONMENT,
        "CGO_ENABLED": "1",
        "CGO_CPPFLAGS": "",
        "CGO_CFLAGS": flags,
        "CGO_CXXFLAGS": flags,
        "CGO_LDFLAGS": "-O2",
    }


def missing_packages(packages: Mapping[str, str]) -> list[str]:
    """The Debian packages whose file or program is not on this machine."""
    return sorted(
        package
        for needed, package in packages.items()
        if not (Path(needed).exists() if needed.startswith("/") else shutil.which(needed))
    )


def install(native: Native) -> None:
    """Installs the packages that are missing, or says which; PartsError."""
    # Not at the top: ci.images is made of parts, and imports this package.
    from ci.images import tools

    if missing := missing_packages(native.packages):
        try:
            tools.install(missing)
        except tools.MissingTools as error:
            raise PartsError(str(error)) from error


def _headers(native: Native, folder: Path) -> Path:
    """A folder that has the header; its name has the hash, for Go's cache knows only names."""
    name, digest = str(Path(native.header).parent), header_digest(native)
    version = pin("headers", name)
    final = folder / "headers" / digest[:16] / native.header
    if not final.exists():
        try:
            sdist = pypi.fetch(name, version, digest)
        except pypi.FetchFailed as error:
            raise PartsError(str(error)) from error
        with tarfile.open(sdist) as archive:
            member = archive.extractfile(f"{name}-{version}/{native.header}")
            assert member is not None
            content = member.read()
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_suffix(".part")
        part.write_bytes(content)
        part.rename(final)
    return final.parent.parent
