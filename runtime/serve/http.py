"""As much of HTTP/1.1 as a live view needs: GET and HEAD without a body."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs

MAX_HEAD_BYTES = 8 * 1024
_MAX_LINE_BYTES = 2 * 1024
_MAX_FIELDS = 64

_METHODS = ("GET", "HEAD")
_REQUEST_LINE = re.compile(r"([!-~]{1,32}) (/[!-~]*) HTTP/1\.([01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ \t!-~\x80-\xff]*)")

# Of every answer: nothing may guess a type, keep a copy, embed or learn the address.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refusal(Exception):
    """Is a request that is answered with an error, and the connection closed.

    Args:
        status: Of the answer.
        text: One sentence for whoever asked.
        headers: More of them.
    """

    def __init__(
        self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True)
class Request:
    """Is one request.

    Attributes:
        method: `GET` or `HEAD`.
        path: Starts with `/`; as it was sent, without the query.
        query: The first value of each name.
        headers: By name in lower case.
        keeps_alive: Whether the client wants to ask again on this connection.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keeps_alive: bool

    def cookie(self, name: str) -> str | None:
        """Gives a cookie; those of other servers here may look like anything."""
        for part in self.headers.get("cookie", "").split(";"):
            found, _, value = part.strip().partition("=")
            if found == name:
                return value
        return None

    @property
    def bearer(self) -> str | None:
        """The token of the header `Authorization: Bearer TOKEN`."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() if kind.lower() == "bearer" else None


@dataclass(frozen=True, eq=False)
class Response:
    """Is one answer.

    Attributes:
        body: All of it.
        kind: Media type.
        status: By default 200.
        headers: More of them; they go before those of every answer.
    """

    body: bytes
    kind: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, with_body: bool, keeps_alive: bool) -> bytes:
        """Gives the bytes to send."""
        headers = {
            "Content-Length": str(len(self.body)),
            "Connection": "keep-alive" if keeps_alive else "close",
            **self.headers,
        }
        head = encode_head(self.status, self.kind, headers)
        return head + self.body if with_body else head


def encode_head(status: HTTPStatus, kind: str, headers: Mapping[str, str]) -> bytes:
    """Gives the head of an answer, with the headers of every answer."""
    fields = {"Content-Type": kind, **SECURITY_HEADERS, **headers}
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def refuse(refusal: Refusal) -> Response:
    """Gives the answer to what is refused."""
    text = f"{refusal.status.value} {refusal.status.phrase}: {refusal}\n"
    return Response(
        text.encode(), "text/plain; charset=utf-8", refusal.status, refusal.headers
    )


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Reads the head of a request.

    Args:
        reader: Made with the limit `MAX_HEAD_BYTES`.

    Returns:
        None if the client has closed the connection.

    Raises:
        Refusal: If the head is too large, damaged, or asks for what is not offered.
    """
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the head of a request may have {MAX_HEAD_BYTES} bytes",
        ) from None
    return parse_head(data)


def parse_head(data: bytes) -> Request:
    """Parses request line and headers, up to the empty line.

    Raises:
        Refusal: As `read_request`.
    """
    first, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    if len(first) > _MAX_LINE_BYTES:
        raise Refusal(
            HTTPStatus.REQUEST_URI_TOO_LONG,
            f"the first line of a request may have {_MAX_LINE_BYTES} bytes",
        )
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise Refusal(HTTPStatus.BAD_REQUEST, "expected GET /PATH HTTP/1.1")
    method, target, version = found.groups()
    if method not in _METHODS:
        raise Refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "only GET and HEAD are understood",
            {"Allow": ", ".join(_METHODS)},
        )
    headers = _parse_fields(lines)
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "requests have no body here")
    if "host" not in headers:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the header Host is missing")
    path, _, text = target.partition("?")
    try:
        query = {k: v[0] for k, v in parse_qs(text, max_num_fields=16).items()}
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "too many parameters") from None
    wish = headers.get("connection", "").lower()
    return Request(
        method=method,
        path=path,
        query=query,
        headers=headers,
        keeps_alive="keep-alive" in wish if version == "0" else "close" not in wish,
    )


def _parse_fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > _MAX_FIELDS:
        raise Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"a request may have {_MAX_FIELDS} headers",
        )
    headers: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise Refusal(HTTPStatus.BAD_REQUEST, "a header is damaged")
        name = found[1].lower()
        if name in headers and name == "host":
            raise Refusal(HTTPStatus.BAD_REQUEST, "two headers Host")
        headers[name] = found[2].strip()
    return headers
