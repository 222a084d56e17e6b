"""`/docs`, `/redoc` and `/`: the API's documentation for people, served without other hosts.

Servers and their operators often cannot reach the Internet, so Swagger UI's files come from a Python package,
and the page's policy forbids the browser every other host. The page also has a plain list of all operations,
made from the OpenAPI document; Swagger UI replaces it once it has loaded.
"""

from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

_VERBS = ("get", "post", "put", "patch", "delete")
_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
"""The package's files that are served, with their media types."""
_WORDS = (
    "<p>Everything is in "
    '<a href="openapi.json">openapi.json</a>, which any OpenAPI tool reads. The operations:</p>'
)
_START = """\
window.ui = SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset], layout: "BaseLayout"
})
"""
"""A separate file: the page's policy forbids inline scripts."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI writes styles into its elements. Nothing else is allowed: people type keys into the page."""
READING_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""For pages without scripts, styles or pictures."""
_DOCS = {"docs": ("/docs", "Documentation"), "redoc": ("/redoc", "Documentation without scripts")}
_LINKS = {
    "openapi": ("/openapi.json", "OpenAPI document"),
    "error_codes": ("/v1/error-codes", "Error codes, with what to do"),
    "health": ("/healthz", "Health of this process"),
    "readiness": ("/readyz", "Whether it can take orders"),
}


def install(app: FastAPI, *, pages: bool) -> None:
    """`pages`: whether to serve `/docs` and `/redoc`. `/openapi.json` is always served."""
    links = {**_DOCS, **_LINKS} if pages else _LINKS

    async def docs(_: Request) -> Response:
        return HTMLResponse(_page(app), headers={"Content-Security-Policy": POLICY})

    async def start(_: Request) -> Response:
        return Response(_START, media_type="text/javascript")

    async def file(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return Response(_content(name), media_type=_FILES[name])

    async def reading(_: Request) -> Response:
        return HTMLResponse(_reading_page(app), headers={"Content-Security-Policy": READING_POLICY})

    async def index(request: Request) -> Response:
        return _index(app, request, links)

    app.add_route("/", index, include_in_schema=False)
    if not pages:
        return
    app.add_route("/redoc", reading, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.add_route("/docs/start.js", start, include_in_schema=False)
    for name in _FILES:
        app.add_route(f"/docs/{name}", file, include_in_schema=False)


@cache
def _content(name: str) -> bytes:
    return (files("fastapi_swagger") / "resources" / name).read_bytes()


def _page(app: FastAPI) -> str:
    """All addresses are relative, so that the page also works behind a proxy's path."""
    title = escape(f"{app.title} API")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="stylesheet" href="docs/swagger-ui.css">'
        '<link rel="icon" href="docs/favicon-32x32.png"></head><body>'
        f'<div id="swagger-ui">{_list(app.openapi())}</div>'
        '<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>'
    )


def _reading_page(app: FastAPI) -> str:
    title = escape(f"{app.title} API")
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f"{head}<body>{_list(app.openapi())}</body></html>"


def _list(document: dict[str, Any]) -> str:
    rows = [
        f"<dt><code>{verb.upper()} {escape(path)}</code></dt>"
        f"<dd>{escape(operation.get('summary', ''))}{_more(operation.get('description', ''))}</dd>"
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if verb in _VERBS
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return f"<h1>{title}</h1>{_WORDS}<dl>{''.join(rows)}</dl>"


def _more(description: str) -> str:
    return f"<br>{escape(description)}" if description else ""


def _index(app: FastAPI, request: Request, known: Mapping[str, tuple[str, str]]) -> Response:
    """Links to the API's entry points: a page for browsers, JSON for programs."""
    root = request.scope.get("root_path", "")
    if "text/html" not in request.headers.get("accept", ""):
        links = {name: f"{root}{path}" for name, (path, _) in known.items()}
        return JSONResponse({"name": app.title, "version": app.version, "links": links})
    items = "".join(
        f'<li><a href="{escape(root + path)}">{escape(words)}</a></li>' for path, words in known.values()
    )
    title = escape(app.title)
    page = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title} {escape(app.version)}</h1><ul>{items}</ul></body></html>"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": READING_POLICY})
