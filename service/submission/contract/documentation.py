"""The document at `/openapi.json`, and `/docs`: the same for people, without a foreign host.

The page is Swagger UI, whose files come with the package `fastapi-offline` and are served from here, so it
works in a network without a way out. Nothing on it is inline: the script that starts it is a file too.
That keeps its Content-Security-Policy to this origin, with `data:` for the pictures of Swagger UI's own
style sheet; every other answer stays at `default-src 'none'`. "Try it out" talks to this origin only.

The document is written once, when it is first asked for: it does not change while the process lives.
"""

import json
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from service.submission.door import Door
from service.submission.problems import not_found

_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon.png": "image/png",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Relative addresses: the page also works behind a proxy that puts a path before it.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Postroom: the API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
</head>
<body>
<div id="swagger-ui"><noscript>This page needs JavaScript; the document itself is at /openapi.json.</noscript></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Without a validator, which Swagger UI would ask at its maker's host.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: false,
  validatorUrl: null,
});
"""

_KEPT = {"Cache-Control": "public, max-age=3600"}


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of the document and its page."""
    router = APIRouter(include_in_schema=False)
    shown = _Documentation()
    router.add_api_route("/openapi.json", shown.document, methods=["GET"])
    router.add_api_route("/docs", shown.page, methods=["GET"])
    router.add_api_route("/docs/{name}", shown.asset, methods=["GET"])
    return router


class _Documentation:
    def __init__(self) -> None:
        self._document: bytes | None = None

    async def document(self, request: Request) -> Response:
        if self._document is None:
            written = json.dumps(request.app.openapi(), ensure_ascii=False, separators=(",", ":"))
            self._document = written.encode()
        return Response(self._document, media_type="application/json")

    async def page(self) -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    async def asset(self, name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript", headers=_KEPT)
        if name not in _ASSETS:
            raise not_found()
        path = files("fastapi_offline") / "static" / name
        return FileResponse(str(path), media_type=_ASSETS[name], headers=_KEPT)
