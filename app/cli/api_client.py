"""Client of Registrar's API: authenticates, repeats harmless calls, and turns problems into words.

A call is repeated only when that can do no harm: it reads, it creates with an Idempotency-Key, it was refused
as one call too many, or it never left this machine. A refusal by the API becomes a `Stop` with the API's own
words. The key is never part of a message.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import httpx
import orjson

from app.cli.outcome import ExitCode, Stop
from app.kernel.transport import is_local

Transport = httpx.BaseTransport
JsonObject = dict[str, Any]

ATTEMPTS: Final = 4
PAUSES: Final = (0.3, 0.7, 1.5)
"""Seconds before each repetition when the answer names none: a restart of the API takes about two."""
LONGEST_PAUSE: Final = 60.0
"""The longest wait in seconds for a rate-limited key: the rest of a minute."""
TIMEOUT: Final = httpx.Timeout(connect=5, read=120, write=120, pool=5)
"""Seconds. The largest order, 10,000 devices with hashes, is 43 MB to send and seconds to check."""
PAGE_SIZE: Final = 500
NO_CONTENT: Final = 204
TOO_MANY: Final = 429
"""The status of a call that was not carried out because there were too many."""


_KEY_REFUSED: Final = (
    "The API does not accept this API key.",
    "It is mistyped, expired or revoked, or belongs to another installation.",
    "Correct REGISTRAR_API_KEY. `registrar api-key list` shows which keys are valid.",
)
_NOTHING_TO_WAIT_FOR: Final = b'"too_many_wrong_keys"'
"""Codes that are never retried: a wrong key is still wrong in a minute."""
_DETAIL_SAYS_IT: Final = frozenset({"not_found", "invalid_state", "unknown_customer"})
"""Codes whose title and remedy are for programs. People need only the detail."""


class Unreachable(Stop):
    """The API did not answer; the request may or may not have been carried out."""

    def __init__(self, words: str, *advice: str) -> None:
        super().__init__(words, *advice, error_code="api_unreachable")


class ApiRefusal(Stop):
    """The API answered with a problem."""

    def __init__(self, status: int, problem: JsonObject) -> None:
        title, detail, remedy = (_text(problem, name) for name in ("title", "detail", "remedy"))
        code = _text(problem, "code")
        if code == "unauthenticated":
            title, detail, remedy = _KEY_REFUSED
        elif code in _DETAIL_SAYS_IT and detail:
            title, remedy = detail, ""
        advice = [line for line in (detail if detail != title else "", remedy) if line]
        if status >= 500 and _text(problem, "correlation_id"):
            advice.append(f"For the operator: correlation id {_text(problem, 'correlation_id')}.")
        errors = [entry for entry in problem.get("errors") or () if isinstance(entry, dict)]
        super().__init__(title, *advice, code=ExitCode.ERROR, errors=errors, error_code=code or None)
        self.status = status
        self.problem_code = code
        self.problem = problem
        self.detail = detail or title
        links = problem.get("links")
        self.links: Mapping[str, str] = links if isinstance(links, dict) else {}

    def document(self) -> dict[str, Any]:
        """The API's own words, because a newer API may have codes that this program does not know."""
        told = super().document()
        for name in ("code", "title", "detail", "remedy", "correlation_id"):
            if text := _text(self.problem, name):
                told[name] = text
        return told


@dataclass(frozen=True, slots=True)
class Answer:
    body: JsonObject
    retry_after: float | None = None
    """Seconds the API asks to wait before the next look."""
    replayed: bool = False
    """The same request was answered before; this is that answer."""


class Api:
    """The API at one URL, with one key. Use it as a context manager."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        transport: Transport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = base_of(url)
        host = _host(self.url)
        self.sleep = sleep
        self._client = httpx.Client(
            base_url=self.url,
            headers={
                "Authorization": f"Bearer {_usable(key)}",
                "Accept": "application/json",
                "User-Agent": "registrar-cli",
            },
            timeout=TIMEOUT,
            transport=transport,
            # A proxy for the outside world must not get calls to this machine.
            trust_env=not is_local(host),
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str | int | None) -> Answer:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._call("GET", path, repeatable=True, params=given)

    def look(self, path: str) -> Answer:
        """As `get`, in one attempt: a check of the service reports an outage at once."""
        return self._call("GET", path, repeatable=True, pauses=())

    def download(self, path: str) -> bytes:
        """A file's bytes as they are."""
        response = self._send("GET", path, repeatable=True, headers={"Accept": "text/csv, */*"})
        if not response.is_success:
            self._answer(response)
        return response.content

    def post(
        self,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        repeatable: bool = False,
        kind: str = "application/json",
    ) -> Answer:
        """`key` is the Idempotency-Key; with one, or if `repeatable`, it is tried several times."""
        headers = {"Content-Type": kind} if body is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        return self._call(
            "POST", path, repeatable=repeatable or key is not None, content=body, headers=headers
        )

    def patch(self, path: str, body: bytes) -> Answer:
        """The same change twice is the same."""
        headers = {"Content-Type": "application/json"}
        return self._call("PATCH", path, repeatable=True, content=body, headers=headers)

    def delete(self, path: str, **parameters: str) -> Answer:
        """Deletes; a repetition is harmless, because what is gone stays gone."""
        return self._call("DELETE", path, repeatable=True, params=parameters)

    def upload(
        self, path: str, pieces: Callable[[], Iterator[bytes]], *, key: str, **parameters: str | None
    ) -> Answer:
        """A file as the body, streamed; `pieces` begins again from the start for each attempt."""
        given = {name: value for name, value in parameters.items() if value is not None}
        headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": key}
        return self._call("POST", path, repeatable=True, pieces=pieces, params=given, headers=headers)

    def save(self, path: str, write: Callable[[bytes], object]) -> None:
        """Streams a file as it arrives."""
        for pause in (*PAUSES, None):
            try:
                with self._client.stream("GET", path) as response:
                    if response.is_success:
                        for piece in response.iter_bytes():
                            write(piece)
                        return
                    response.read()
            except httpx.TransportError as error:
                raise self._unreachable(error, sent=False) from None
            if pause is None or not _is_passing(response):
                self._answer(response)
            else:
                self._wait(response, pause)

    def items(self, path: str, *, limit: int | None = None, **parameters: str | None) -> Iterator[JsonObject]:
        """The items of all pages, at most `limit`."""
        token: str | None = None
        left = limit
        while True:
            size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
            page = self.get(path, page_size=size, page_token=token, **parameters).body
            yield from page["items"]
            token = page.get("next_page_token")
            if left is not None:
                left -= len(page["items"])
            if not token or (left is not None and left <= 0):
                return

    def _call(self, method: str, path: str, *, repeatable: bool, **request: Any) -> Answer:
        return self._answer(self._send(method, path, repeatable=repeatable, **request))

    def _send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        pieces: Callable[[], Iterator[bytes]] | None = None,
        pauses: Sequence[float] = PAUSES,
        **request: Any,
    ) -> httpx.Response:
        for pause in (*pauses, None):
            if pieces is not None:
                request["content"] = pieces()
            try:
                response = self._client.request(method, path, **request)
            except httpx.TransportError as error:
                never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if pause is None or not (repeatable or never_sent):
                    raise self._unreachable(error, sent=not (repeatable or never_sent)) from None
                self.sleep(pause)
                continue
            harmless = repeatable or response.status_code == TOO_MANY
            if pause is None or not harmless or not _is_passing(response):
                return response
            self._wait(response, pause)
        raise AssertionError("the last round returns or raises")

    def _wait(self, response: httpx.Response, pause: float) -> None:
        self.sleep(min(_retry_after(response) or pause, LONGEST_PAUSE))

    def _answer(self, response: httpx.Response) -> Answer:
        if response.status_code == NO_CONTENT:
            return Answer({})
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict) or not (response.is_success or _text(body, "title")):
            self._not_ours(response)
        if response.is_success:
            replayed = response.headers.get("Idempotency-Replayed") == "true"
            return Answer(body, _retry_after(response), replayed)
        raise ApiRefusal(response.status_code, body)

    def _not_ours(self, response: httpx.Response) -> NoReturn:
        raise Stop(
            f"What answers at {self.url} is not Registrar's API (status {response.status_code}).",
            "Check REGISTRAR_API_URL, and the proxy if there is one in front.",
            error_code="api_not_recognised",
        )

    def _unreachable(self, error: httpx.TransportError, *, sent: bool) -> Unreachable:
        if isinstance(error, httpx.ConnectError) and "certificate" in str(error).lower():
            return Unreachable(
                f"The API at {self.url} shows a certificate that this machine does not trust.",
                "Check the host name in REGISTRAR_API_URL, or set SSL_CERT_FILE to your authority's file.",
            )
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            words = f"The API at {self.url} did not answer in time."
        else:
            words = f"The API at {self.url} does not answer."
        if sent:
            return Unreachable(
                words, "The call may have been carried out: look before you give the command again."
            )
        return Unreachable(words, "Is it running? `make up` starts it. REGISTRAR_API_URL says where it is.")


def base_of(url: str) -> str:
    """The API's base URL; people also paste it with `/v1`."""
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise Stop(
            "The address of the API is not a URL.",
            "REGISTRAR_API_URL looks like http://127.0.0.1:8000.",
            error_code="api_url_unusable",
        )
    return host


def _usable(key: str | None) -> str:
    key = (key or "").strip()
    if not key:
        raise Stop(
            "There is no API key to call with.",
            "Set REGISTRAR_API_KEY, or use a profile (`registrar profile add`). `registrar api-key create` "
            "makes a key.",
            error_code="api_key_missing",
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise Stop(
            "The API key has characters that no key has.",
            "Copy REGISTRAR_API_KEY again, whole.",
            error_code="api_key_unusable",
        )
    return key


def _is_passing(response: httpx.Response) -> bool:
    """Whether the answer asks for a repetition. 409 does only if the first request is still running."""
    if response.status_code == TOO_MANY:
        return _NOTHING_TO_WAIT_FOR not in response.content
    return response.status_code == 503 or (
        response.status_code == 409 and b'"idempotency_in_progress"' in response.content
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; the API never uses the date form."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _text(problem: JsonObject, name: str) -> str:
    value = problem.get(name)
    return value.strip() if isinstance(value, str) else ""
