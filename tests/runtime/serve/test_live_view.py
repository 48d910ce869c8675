"""The live view over real sockets: what it shows, to whom, and that it never waits."""

import contextlib
import http.client
import json
import logging
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.errors import DataError, OutputError, UsageError
from deeplab2_edge.images import decode_image
from deeplab2_edge.runtime.serve import LiveView
from tests.runtime.serve.scenes import (
    CAR,
    PERSON,
    ROAD,
    SKY,
    SOURCE,
    make_result,
    publish,
    publishing,
)

TOKEN = "a-token-for-the-tests"


def test_the_newest_frame_is_shown() -> None:
    with LiveView(port=0) as live:
        publish(live, 1)
        publish(live, 2)
        status, headers, body = _get(live, "/frame.jpg")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert headers["x-frame-number"] == "2"
        picture = decode_image(body, where="frame.jpg")
        assert picture.shape == (60, 120, 3)
        assert abs(int(picture.mean()) - 80) <= 2
        document = _get_json(live)
    assert document["number"] == 2 and document["index"] == 2
    assert document["source"] == SOURCE and document["state"] == "running"
    stages = {"wait": 9.0, "preprocess": 1.0, "network": 30.5, "merge": 2.0}
    assert document["timings_ms"] == stages
    assert [segment["id"] for segment in document["segments"]] == [SKY, ROAD, CAR]
    car = document["segments"][2]
    assert car["score"] == pytest.approx(0.9)
    assert car["area_share"] == pytest.approx(200 / 7200, abs=1e-6)
    assert car["color"].startswith("#") and len(car["color"]) == 7


def test_before_the_first_frame_there_is_none() -> None:
    with LiveView(port=0) as live:
        status, headers, _ = _get(live, "/frame.jpg")
        assert status == 503 and headers["retry-after"] == "1"
        assert _get_json(live)["state"] == "waiting"
        assert json.loads(_get(live, "/healthz")[2]) == {"state": "waiting"}


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    with LiveView(port=0) as live:
        status, headers, body = _get(live, "/")
    assert status == 200 and body.startswith(b"<!doctype html>")
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "*" not in policy
    assert b"https:" not in body and b"/* live." not in body


def test_a_connection_answers_many_requests() -> None:
    with LiveView(port=0) as live, _connect(live) as connection:
        publish(live, 0)
        for path in ("/", "/frame.jpg", "/result.json", "/healthz") * 5:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200 and response.read()
        connection.request("HEAD", "/frame.jpg")
        response = connection.getresponse()
        assert int(response.headers["content-length"]) > 100 and not response.read()


def test_a_picture_is_encoded_once_and_only_for_those_who_look() -> None:
    with LiveView(port=0) as live:
        for number in range(50):
            publish(live, number)
        assert live.stats.encoded == 0
        bodies = {_get(live, "/frame.jpg")[2] for _ in range(5)}
        assert len(bodies) == 1 and live.stats.encoded == 1
        assert live.stats.published == 50


def test_large_pictures_are_made_smaller() -> None:
    with LiveView(port=0, max_side_px=100) as live:
        live.publish(make_result(1), np.zeros((60, 400, 3), np.uint8), "test", 0)
        picture = decode_image(_get(live, "/frame.jpg")[2], where="frame.jpg")
    assert picture.shape == (15, 100, 3)


def test_events_begin_with_what_there_is() -> None:
    with LiveView(port=0) as live:
        start = time.monotonic()
        with _stream(live, "/events") as lines:
            first = json.loads(next(lines).removeprefix(b"data: "))
        assert first["state"] == "waiting" and "number" not in first
        publish(live, 1)
        with _stream(live, "/events") as lines:
            first = json.loads(next(lines).removeprefix(b"data: "))
        assert first["state"] == "running" and first["number"] == 1
        assert time.monotonic() - start < 1.5


def test_events_follow_the_frames() -> None:
    with LiveView(port=0, max_fps=1000) as live, _stream(live, "/events") as lines:
        assert b"waiting" in next(lines) and next(lines) == b""
        numbers, persons = [], []
        for number in range(1, 6):
            publish(live, number)
            event = json.loads(next(lines).removeprefix(b"data: "))
            assert next(lines) == b""
            numbers.append(event["number"])
            persons.append(PERSON in [s["id"] for s in event["segments"]])
        assert numbers == [1, 2, 3, 4, 5]
        assert persons == [True, False, True, False, True]


def test_events_come_as_often_as_asked_and_no_more() -> None:
    with LiveView(port=0, max_fps=20) as live, _stream(live, "/events") as lines:
        with publishing(live):
            start, count = time.monotonic(), 0
            while time.monotonic() - start < 1.0:
                count += next(lines).startswith(b"data: ")
    assert 5 <= count <= 23


def test_a_video_has_one_picture_per_part() -> None:
    with LiveView(port=0, max_fps=1000) as live:
        publish(live, 1)
        with _open(live, "/stream.mjpg") as response:
            kind = response.headers["content-type"]
            assert kind == "multipart/x-mixed-replace; boundary=frame"
            for number in range(1, 4):
                assert response.readline() == b"--frame\r\n"
                assert response.readline() == b"Content-Type: image/jpeg\r\n"
                length = int(response.readline().split()[1])
                assert response.readline() == b"\r\n"
                picture = decode_image(response.read(length), where="part")
                assert abs(int(picture.mean()) - 40 * number) <= 2
                assert response.readline() == b"\r\n"
                publish(live, number + 1)


def test_a_stalled_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with LiveView(port=0) as live:
        publish(live, 1)
        assert _get_json(live)["state"] == "running"
        monkeypatch.setattr("deeplab2_edge.runtime.serve.newest._STALLED_S", 0.05)
        time.sleep(0.1)
        assert _get_json(live)["state"] == "stalled"
        publish(live, 2)
        assert _get_json(live)["state"] == "running"


def test_secrets_of_a_source_are_not_shown() -> None:
    source = "rtsp://admin:pass@word/1@camera.lan:554/stream?key=hidden"
    with LiveView(port=0) as live:
        live.publish(make_result(1), make_result(1).image, source, 0)
        assert _get_json(live)["source"] == "rtsp://camera.lan:554/stream"
        live.publish(make_result(1), make_result(1).image, "what?.mp4", 0)
        time.sleep(0.1)
        assert _get_json(live)["source"] == "what?.mp4"


def test_numbers_that_json_lacks_become_null() -> None:
    result = make_result(1)
    object.__setattr__(result.segments[2], "score", float("nan"))
    with LiveView(port=0) as live:
        live.publish(result, result.image, "test", 0)
        assert _get_json(live)["segments"][2]["score"] is None


def test_wrong_pictures_are_refused() -> None:
    result = make_result(1)
    with LiveView(port=0) as live:
        for picture in (result.image[..., 0], result.image.astype(np.float32)):
            with pytest.raises(DataError, match=r"expected uint8 \[H, W, 3\]"):
                live.publish(result, picture, "test", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/x", 404), ("/../etc/passwd", 404), ("/assets/live.js", 404), ("//", 404)],
)
def test_nothing_else_can_be_read(path: str, status: int) -> None:
    with LiveView(port=0) as live:
        assert _get(live, path)[0] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    with LiveView(port=0) as live:
        status, headers, _ = _get(live, "/", method=method)
    assert status == 405 and headers["allow"] == "GET, HEAD"


def test_a_token_opens_by_address_then_cookie_or_by_header() -> None:
    with LiveView(port=0, token=TOKEN) as live:
        publish(live, 1)
        assert live.url.endswith(f"/?token={TOKEN}")
        status, headers, _ = _get(live, f"/?token={TOKEN}")
        cookie = headers["set-cookie"]
        assert status == 200 and TOKEN not in cookie
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        kept = {"Cookie": f"theme={{dark}}; {cookie.partition(';')[0]}"}
        for path in ("/", "/frame.jpg", "/result.json"):
            assert _get(live, path, **kept)[0] == 200
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert _get(live, "/frame.jpg", **bearer)[0] == 200
        assert _get(live, "/healthz")[0] == 200


@pytest.mark.parametrize("path", ["/", "/frame.jpg", "/result.json", "/events", "/x"])
def test_without_the_token_nothing_is_shown(path: str) -> None:
    with LiveView(port=0, token=TOKEN) as live:
        publish(live, 1)
        cookie = f"live_view_{_port(live)}"
        for headers in (
            {},
            {"Authorization": "Bearer wrong-wrong-wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Cookie": f"{cookie}={TOKEN}"},
            {"Cookie": f"{cookie}="},
        ):
            status, answer, body = _get(live, path, **headers)
            assert status == 401 and answer["www-authenticate"] == "Bearer"
            assert b"?token=" in body and TOKEN.encode() not in body
        assert _get(live, f"{path}?token={TOKEN[:-1]}")[0] == 401
        assert live.stats.encoded == 0


def test_the_token_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with LiveView(port=0, token=TOKEN) as live:
        for path in (f"/?token={TOKEN}", f"/x?token={TOKEN}", "/?token=wrong"):
            _get(live, path)
        _get(live, "/", method="POST", Authorization=f"Bearer {TOKEN}")
        text = repr(live) + repr(live.stats) + repr(vars(live._gate).keys())
    assert "refused" in caplog.text
    assert TOKEN not in caplog.text + text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "10.0.0.1", ""])
def test_other_names_are_refused(host: str) -> None:
    with LiveView(port=0) as live:
        status, _, body = _get(live, "/frame.jpg", Host=host)
    assert status == 421 and b"http://127.0.0.1:" in body


def test_pages_of_others_cannot_embed_it() -> None:
    with LiveView(port=0) as live:
        publish(live, 1)
        foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert _get(live, "/frame.jpg", **foreign)[0] == 403
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert _get(live, "/", **link)[0] == 200
        own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
        assert _get(live, "/frame.jpg", **own)[0] == 200


def test_an_open_address_needs_a_token() -> None:
    with pytest.raises(
        UsageError, match=r"0.0.0.0:8765 .* needs a token: .*--token auto"
    ):
        LiveView("0.0.0.0")
    with LiveView("0.0.0.0", 0, token="auto") as live:
        assert "?token=" in live.url and "0.0.0.0" not in live.url
        status, _, body = _get(live, "/")
        assert status == 401 and live.url.encode() not in body


def test_a_taken_port_is_an_error_with_a_way_out() -> None:
    with LiveView(port=0) as live:
        with pytest.raises(OutputError, match="choose another port"):
            LiveView(port=_port(live)).__enter__()


def test_a_port_can_be_used_again_at_once() -> None:
    with LiveView(port=0) as live:
        port = _port(live)
        _get(live, "/")
    with LiveView(port=port) as live:
        assert _get(live, "/healthz")[0] == 200


@pytest.mark.parametrize(
    "options",
    [
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
        {"max_clients": 0},
        {"max_fps": 0.0},
        {"max_fps": float("inf")},
        {"port": 65536},
        {"max_side_px": 0},
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        LiveView(**options)


def test_it_opens_once() -> None:
    live = LiveView(port=0)
    with pytest.raises(UsageError, match="open the live view first"):
        _ = live.url
    with live:
        pass
    with pytest.raises(UsageError, match="opened once"):
        live.__enter__()


def test_large_heads_are_refused() -> None:
    with LiveView(port=0) as live:
        assert _get(live, "/", X="x" * 9000)[0] == 431
        assert _get(live, "/" + "x" * 3000)[0] == 414
        with _raw(live) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"x" * (1 << 20))
            assert client.recv(100).startswith(b"HTTP/1.1 431 ")


def test_rubbish_does_no_harm() -> None:
    random = np.random.default_rng(0)
    with LiveView(port=0, max_requests_per_s=10_000) as live:
        for length in (0, 1, 10, 100, 1000, 10_000) * 8:
            start = b"GET / HTTP/1.1\r\nHost: a\r\n" if length % 3 else b""
            with _raw(live) as client, contextlib.suppress(ConnectionError):
                client.sendall(start + random.bytes(length) + b"\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(100)
                assert not answer or answer.startswith(b"HTTP/1.1 4")
        assert _get(live, "/healthz")[0] == 200


def test_clients_that_leave_at_once_do_no_harm() -> None:
    with LiveView(port=0, max_fps=1000, max_requests_per_s=10_000) as live:
        with publishing(live):
            for path in ("/", "/frame.jpg", "/events", "/stream.mjpg") * 5:
                with _raw(live) as client:
                    client.sendall(f"GET {path} HTTP/1.1\r\nHost: ::1\r\n".encode())
                with _raw(live) as client:
                    client.sendall(
                        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                    )
                    client.recv(10)
            assert _eventually(lambda: live.stats.clients == 0, live)
        assert _get(live, "/healthz")[0] == 200


def test_a_request_must_come_in_time_even_byte_by_byte() -> None:
    with LiveView(port=0, request_s=0.4) as live, _raw(live) as client:
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: slow":
                client.send(bytes([byte]))
                time.sleep(0.05)
                if time.monotonic() - start > 0.6:
                    break
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed() -> None:
    with LiveView(port=0, request_s=0.2) as live, _raw(live) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")
        start = time.monotonic()
        assert client.recv(100) == b""
        assert time.monotonic() - start < 2


def test_only_so_many_may_watch() -> None:
    with LiveView(port=0, max_clients=2) as live, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(_open(live, "/events"))
        status, headers, body = _get(live, "/stream.mjpg")
        assert status == 503 and headers["retry-after"] == "5"
        assert b"2 clients watch already" in body
        assert live.stats.clients == 2
        assert _get(live, "/healthz")[0] == 200
    with LiveView(port=0, max_clients=1) as live:
        with _open(live, "/events"):
            assert _get(live, "/events")[0] == 503
            publish(live, 1)
        assert _eventually(lambda: live.stats.clients == 0, live)
        with _open(live, "/events") as response:
            assert response.status == 200


def test_connections_are_counted() -> None:
    with LiveView(port=0, max_clients=1) as live, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(_raw(live))
        with _raw(live) as fifth:
            assert fifth.recv(100).startswith(b"HTTP/1.1 503 ")


def test_strangers_do_not_keep_others_out() -> None:
    with LiveView(port=0, token=TOKEN) as live, contextlib.ExitStack() as stack:
        for _ in range(40):  # more than there are places
            stack.enter_context(_raw(live))
        with _raw(live) as one_more:
            assert one_more.recv(100).startswith(b"HTTP/1.1 503 ")
        with contextlib.closing(
            http.client.HTTPConnection(
                "127.0.0.1", _port(live), timeout=10, source_address=("127.0.0.2", 0)
            )
        ) as other:
            other.request("GET", f"/?token={TOKEN}")
            assert other.getresponse().status == 200


def test_who_asks_too_often_has_to_wait() -> None:
    with LiveView(port=0, max_requests_per_s=1) as live:
        statuses = [_get(live, "/healthz")[0] for _ in range(20)]
        assert statuses[:2] == [200, 200] and statuses.count(429) >= 10
        time.sleep(1.1)
        assert _get(live, "/healthz")[0] == 200


def test_slow_clients_are_dropped_and_memory_stays_bounded() -> None:
    alive: list[weakref.ref[Any]] = []
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    result = make_result(1)
    with LiveView(port=0, max_fps=100, answer_s=0.5) as live:
        with _raw(live, receive_bytes=4096) as slow:
            slow.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            deadline, most = time.monotonic() + 8, 0
            longest = 0.0
            while not live.stats.dropped and time.monotonic() < deadline:
                picture = noise.copy()
                alive = [*filter(lambda ref: ref() is not None, alive)]
                most = max(most, len(alive))
                alive.append(weakref.ref(picture))
                start = time.thread_time()
                live.publish(result, picture, "test", 0)
                longest = max(longest, time.thread_time() - start)
                del picture
                time.sleep(0.002)
            assert live.stats.dropped == 1 and live.stats.clients == 0
            assert live.stats.published > 20
            # The newest, the one handed out and the one being sent.
            assert 1 <= most <= 3
            assert longest < 0.05
        publish(live, 3)
        time.sleep(0.02)
        assert _get(live, "/frame.jpg")[1]["x-frame-number"]


def test_many_threads_may_publish_while_clients_come_and_go() -> None:
    last = 0
    with LiveView(port=0, max_fps=1000, max_requests_per_s=10_000) as live:
        with publishing(live), publishing(live):
            for _ in range(10):
                with _stream(live, "/events") as lines:
                    events = (json.loads(line[6:]) for line in lines if line)
                    frames = (event for event in events if "number" in event)
                    numbers = [next(frames)["number"] for _ in range(4)]
                assert numbers[0] >= last and numbers == sorted(set(numbers))
                last = numbers[-1]
        assert live.stats.published >= last >= 30
        assert live.stats.dropped == 0


def test_closing_says_goodbye_and_takes_less_than_a_second() -> None:
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(LiveView(port=0))
        publish(live, 1)
        lines = stack.enter_context(_stream(live, "/events"))
        next(lines)
        video = stack.enter_context(_open(live, "/stream.mjpg"))
        stack.enter_context(_raw(live))
        idle = stack.enter_context(_connect(live))
        idle.request("GET", "/healthz")
        idle.getresponse().read()
        start = time.monotonic()
        live.close()
        assert time.monotonic() - start < 1.0
        rest = [line for line in lines if line]
        assert json.loads(rest[-1].removeprefix(b"data: "))["state"] == "ended"
        video.read()
        with pytest.raises(ConnectionError):
            _get(live, "/healthz")
        publish(live, 2)
        live.close()
        assert live.stats.published == 1
    assert "live-view" not in {thread.name for thread in threading.enumerate()}


def test_every_page_hears_that_the_run_has_ended() -> None:
    """Also one that is being sent a frame at that moment."""
    for _ in range(10):
        with LiveView(port=0, max_fps=1000) as live, _stream(live, "/events") as lines:
            with publishing(live):
                next(lines)
                live.close()
            *_, last = (line for line in lines if line)
            assert json.loads(last.removeprefix(b"data: "))["state"] == "ended"


def _eventually(condition: Any, live: LiveView, *, seconds: float = 5.0) -> bool:
    """Waits for a condition; frames go on, so that who has left is noticed."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        publish(live, 1)
        time.sleep(0.02)
    return bool(condition())


def _port(live: LiveView) -> int:
    return int(live.url.partition("//")[2].partition("/")[0].rpartition(":")[2])


@contextlib.contextmanager
def _connect(live: LiveView) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", _port(live), timeout=10)
    ) as connection:
        yield connection


def _get(
    live: LiveView, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with _connect(live) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read()


def _get_json(live: LiveView) -> dict[str, Any]:
    status, headers, body = _get(live, "/result.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return dict(json.loads(body))


@contextlib.contextmanager
def _open(live: LiveView, path: str) -> Iterator[http.client.HTTPResponse]:
    with _connect(live) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            assert response.status == 200
            yield response


@contextlib.contextmanager
def _stream(live: LiveView, path: str) -> Iterator[Iterator[bytes]]:
    with _open(live, path) as response:
        yield (line.rstrip(b"\n") for line in response)


@contextlib.contextmanager
def _raw(live: LiveView, *, receive_bytes: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as client:
        if receive_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(10)
        client.connect(("127.0.0.1", _port(live)))
        yield client
