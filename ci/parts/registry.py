"""Takes programs out of an image in a registry (OCI distribution), by the image's digest."""

import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ci.parts import https, unpack
from ci.parts.archives import Archive
from ci.parts.errors import Refused, Unreachable

_KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LARGEST_ANSWER = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Image:
    """One image by its digest, that of its index or of one platform's manifest.

    All that comes from the registry has the digest by which it was asked for, which leads back to
    the pinned one.
    """

    def __init__(self, archive: Archive, read_seconds: float = 30.0) -> None:
        host, _, repository = archive.location.partition("/")
        self._archive = archive
        self._what = f"{archive.location}@{archive.checksum}"
        self._url = f"https://{host}/v2/{repository}"
        self._read_seconds = read_seconds
        self._challenge = ""

    def manifest(self, digest: str) -> dict[str, Any]:
        """An index or a manifest. Raises Unreachable, Refused."""
        url = f"{self._url}/manifests/{digest}"
        for _ in range(2):
            headers = {"Accept": ", ".join(_KINDS), **self._authorization()}
            with https.opened(url, headers, self._read_seconds) as response:
                if response.status_code == 401 and not self._challenge:
                    self._challenge = response.headers.get("WWW-Authenticate", "")
                    continue
                if response.status_code != 200:
                    raise Unreachable(f"{url} cannot be had: HTTP status {response.status_code}")
                content = https.small(response, _LARGEST_ANSWER)
            https.check(url, io.BytesIO(content), digest)
            return self._object(content)
        raise Unreachable(f"{url} cannot be had: the registry asks for a token in an unknown way")

    def pull(self, folder: Path, downloads: Path) -> None:
        """Writes each program to `folder/<part>`, from the topmost layer that has it.

        Layers are kept in `downloads` while they are needed. Raises Unreachable, Refused.
        """
        wanted = dict(self._archive.programs)
        for digest in reversed(self._layers()):
            file = downloads / digest.replace(":", "-")
            url = f"{self._url}/blobs/{digest}"
            https.download(url, digest, file, self._authorization())
            try:
                for part in unpack.programs(self._what, file, wanted, folder):
                    del wanted[part]
            finally:
                file.unlink()
            if not wanted:
                return
        raise Refused(f"{self._what} is refused: it does not have {', '.join(wanted.values())}")

    def _layers(self) -> list[str]:
        """The digests of this machine's layers, the lowest first."""
        found = self.manifest(self._archive.checksum)
        if "manifests" in found:
            wanted = {"os": "linux", "architecture": self._archive.architecture}
            fitting = [
                self._digest(one)
                for one in found["manifests"]
                if wanted.items() <= one.get("platform", {}).items()
            ]
            if not fitting:
                raise Refused(f"{self._what} is refused: it has nothing for {wanted}")
            found = self.manifest(fitting[0])
        return [self._digest(layer) for layer in found.get("layers", [])]

    def _digest(self, described: dict[str, Any]) -> str:
        digest = str(described.get("digest"))
        if not _DIGEST.fullmatch(digest):
            raise Refused(f"{self._what} is refused: {digest!r} is no digest")
        return digest

    def _authorization(self) -> dict[str, str]:
        """A token for anybody, when the registry has asked for one; a new one each time."""
        if not self._challenge:
            return {}
        fields = dict(re.findall(r'(\w+)="([^"]*)"', self._challenge))
        realm = fields.pop("realm", "")
        if not self._challenge.startswith("Bearer ") or not realm:
            raise Unreachable(f"{self._what}: the registry asks for {self._challenge!r}")
        with https.opened(f"{realm}?{urlencode(fields)}", None, self._read_seconds) as response:
            if response.status_code != 200:
                raise Unreachable(f"{realm} gives no token: HTTP status {response.status_code}")
            answer = self._object(https.small(response, _LARGEST_ANSWER))
        return {"Authorization": f"Bearer {answer.get('token') or answer.get('access_token')}"}

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            read = json.loads(content)
        except ValueError as error:
            raise Refused(f"{self._what} is refused: an answer is no JSON") from error
        if not isinstance(read, dict):
            raise Refused(f"{self._what} is refused: an answer is no object")
        return read
