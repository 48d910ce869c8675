"""Requests: what is understood, and what is refused with which status."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deeplab2_edge.runtime.serve.http import Refusal, Request, Response, parse_head


def test_a_request_is_read() -> None:
    request = _parse(
        "GET /frame.jpg?token=a%2Bb&x=1&x=2 HTTP/1.1",
        "HOST: localhost:8765",
        "Cookie: odd={1}; live_view_1=abc; other",
        "Authorization: bearer  s3cret ",
    )
    assert (request.method, request.path) == ("GET", "/frame.jpg")
    assert request.query == {"token": "a+b", "x": "1"}
    assert request.headers["host"] == "localhost:8765"
    assert request.cookie("live_view_1") == "abc"
    assert request.cookie("live_view") is None
    assert request.bearer == "s3cret"
    assert request.keeps_alive


@pytest.mark.parametrize(
    ("version", "wish", "keeps_alive"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
    ],
)
def test_a_connection_is_kept_as_asked(
    version: str, wish: str | None, keeps_alive: bool
) -> None:
    fields = ["Host: a"] + ([f"Connection: {wish}"] if wish else [])
    assert _parse(f"GET / HTTP/{version}", *fields).keeps_alive is keeps_alive


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["POST / HTTP/1.1", "Host: a"], 405),
        (["CONNECT a:1 HTTP/1.1", "Host: a"], 400),
        (["GET http://a/ HTTP/1.1", "Host: a"], 400),
        (["GET / HTTP/2.0", "Host: a"], 400),
        (["GET /", "Host: a"], 400),
        (["GET  / HTTP/1.1", "Host: a"], 400),
        (["GET /\x7f HTTP/1.1", "Host: a"], 400),
        (["GET / HTTP/1.1"], 400),
        (["GET / HTTP/1.1", "Host: a", "Host: b"], 400),
        (["GET / HTTP/1.1", "Host: a", " folded"], 400),
        (["GET / HTTP/1.1", "Host: a", "No colon"], 400),
        (["GET / HTTP/1.1", "Host: a", "Name : x"], 400),
        (["GET / HTTP/1.1", "Host: a", "X: a\nY: b"], 400),
        (["GET / HTTP/1.1", "Host: a", "Content-Length: 3"], 413),
        (["GET / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"], 413),
        (["GET /" + "x" * 3000 + " HTTP/1.1", "Host: a"], 414),
        (["GET / HTTP/1.1", "Host: a", *["X: 1"] * 100], 431),
        (["GET /?" + "&".join("abcdefghijklmnopqrst") + " HTTP/1.1", "Host: a"], 400),
    ],
)
def test_all_else_is_refused(lines: list[str], status: int) -> None:
    with pytest.raises(Refusal) as caught:
        _parse(*lines)
    assert caught.value.status == status


@given(st.binary(max_size=300), st.booleans())
@example(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: \xff=;;=\r\n\r\n", False)
def test_no_bytes_do_harm(data: bytes, has_start: bool) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\n" if has_start else b""
    try:
        request = parse_head(start + data)
    except Refusal:
        return
    assert request.method in ("GET", "HEAD") and request.path.startswith("/")


def test_an_answer_says_how_long_it_is_and_what_may_be_done_with_it() -> None:
    response = Response(b"hello", "text/plain")
    head, _, body = response.encode(with_body=True, keeps_alive=False).partition(
        b"\r\n\r\n"
    )
    assert body == b"hello"
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    for line in (
        "Content-Length: 5",
        "Connection: close",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Cache-Control: no-store",
        "Cross-Origin-Resource-Policy: same-origin",
    ):
        assert line in lines
    alone = response.encode(with_body=False, keeps_alive=True)
    assert alone.endswith(b"\r\n\r\n") and b"Content-Length: 5" in alone


def _parse(*lines: str) -> Request:
    return parse_head(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
