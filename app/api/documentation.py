"""`/docs`: the API's documentation for people, with or without the Internet.

The interactive page loads Swagger UI from a public network, which servers and their operators often
can not reach. So the page holds a plain list of all operations, made from the OpenAPI document;
Swagger UI takes its place once it has loaded.
"""

from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

_PLACE = '<div id="swagger-ui">'
_VERBS = ("get", "post", "put", "patch", "delete")
_WORDS = (
    "<p>The interactive documentation comes from cdn.jsdelivr.net and has not loaded. Everything is in "
    '<a href="/openapi.json">/openapi.json</a>, which any OpenAPI tool reads. The operations:</p>'
)


def install(app: FastAPI) -> None:
    async def docs(request: Request) -> HTMLResponse:
        page = bytes(get_swagger_ui_html(openapi_url="/openapi.json", title=f"{app.title} API").body).decode()
        return HTMLResponse(page.replace(_PLACE, _PLACE + _list(app.openapi()), 1))

    app.add_route("/docs", docs, include_in_schema=False)


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
