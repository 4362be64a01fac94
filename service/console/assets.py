"""The style, the script and the icon: our own small files, under names that change with their content.

A browser keeps each for a year and never asks again; a new version has a new name. They hold nothing of anybody, so
they go out compressed; pages, which hold a secret beside what a stranger wrote, never do (BREACH).
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).with_name("assets")
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FOR_A_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asset:
    octets: bytes
    packed: bytes
    kind: str


class Assets:
    """All of them, read once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._assets: dict[str, _Asset] = {}
        for path in sorted(_FOLDER.iterdir()):
            octets = path.read_bytes()
            name = f"{path.stem}.{hashlib.sha256(octets).hexdigest()[:12]}{path.suffix}"
            packed = gzip.compress(octets, mtime=0)
            self._names[path.name] = name
            self._assets[name] = _Asset(octets=octets, packed=packed, kind=_KINDS[path.suffix])

    def url(self, name: str) -> str:
        """Say where the asset of this file name is to be had."""
        return f"/console/assets/{self._names[name]}"

    async def serve(self, request: Request) -> Response:
        """Hand one out."""
        found = self._assets.get(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        headers = {"Cache-Control": _FOR_A_YEAR, "Content-Type": found.kind, "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.packed, headers={**headers, "Content-Encoding": "gzip"})
        return Response(found.octets, headers=headers)
