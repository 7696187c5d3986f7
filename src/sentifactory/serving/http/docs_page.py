"""`GET /docs`: Swagger UI, served from this machine alone.

The page and its scripts contain nothing about the model and need no key; the OpenAPI document does. Where a key is
required, the page asks its reader for it and sends it with every request.
"""
# Annotations are not postponed here: FastAPI reads them.

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SentiFactory</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<style>#ask { font: 16px sans-serif; margin: 3rem auto; max-width: 30rem } #ask input { width: 100% }</style>
</head>
<body>
<form id="ask" hidden>
<p><label for="key">Key of this service (SENTIFACTORY_SERVE_KEY) · 本服务的密钥</label></p>
<p><input id="key" type="password" autocomplete="off" required></p>
<p><button>Open · 打开</button> <span id="told" role="alert"></span></p>
</form>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""

_SCRIPT = """"use strict";
const form = document.getElementById("ask");
const told = document.getElementById("told");

async function show(key) {
  const headers = key ? { Authorization: "Bearer " + key } : {};
  const answer = await fetch("openapi.json", { headers });
  if (answer.status === 401) {
    form.hidden = false;
    told.textContent = key ? "This key is wrong. · 密钥不正确。" : "";
    return;
  }
  form.hidden = true;
  SwaggerUIBundle({
    spec: await answer.json(),
    url: new URL("openapi.json", location.href).href,
    dom_id: "#swagger-ui",
    requestInterceptor: (request) => {
      if (key && new URL(request.url, location.href).origin === location.origin) {
        request.headers.Authorization = "Bearer " + key;
      }
      return request;
    },
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show(document.getElementById("key").value);
});
show("");
"""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
PAGE_ROUTE = "/docs"
DOCS_ROUTES = (PAGE_ROUTE, "/docs/page.js", *(f"/docs/{name}" for name in _ASSETS))


def add_docs(app: "FastAPI") -> None:
    """Add the routes of the page and of the files that it loads."""
    from fastapi import Response

    def add(route: str, content: bytes, media_type: str, headers: dict[str, str]) -> None:
        async def get_content() -> Response:
            return Response(content, media_type=media_type, headers=headers)

        app.add_api_route(route, get_content, methods=["GET"], response_model=None, include_in_schema=False)

    headers = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    add(PAGE_ROUTE, _PAGE.encode(), "text/html", {**headers, "Content-Security-Policy": _POLICY})
    add("/docs/page.js", _SCRIPT.encode(), "text/javascript", headers)
    folder = resources.files("fastapi_offline") / "static"
    for name, media_type in _ASSETS.items():
        add(f"/docs/{name}", (folder / name).read_bytes(), media_type, {**headers, "Cache-Control": "max-age=3600"})
