"""Serves the newest frame to all who may see it, in one asyncio loop."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from deeplab2_edge.runtime.serve.access import Allowance, Gate
from deeplab2_edge.runtime.serve.address import Listener, is_known_host, known_names
from deeplab2_edge.runtime.serve.connection import Connection, Limits, TooSlow
from deeplab2_edge.runtime.serve.http import (
    MAX_HEAD_BYTES,
    Refusal,
    Request,
    Response,
    encode_head,
    read_request,
    refuse,
)
from deeplab2_edge.runtime.serve.newest import Newest, encode_json
from deeplab2_edge.runtime.serve.page import load_page

# A page has a stream of events and asks for pictures; browsers open one more.
_CONNECTIONS_PER_CLIENT = 4
# Connections of one address that have not shown the token yet. Browsers open as many;
# more would only keep others out.
_MAX_STRANGERS = 6
# Without news, streams say so often that they are alive: so a client that has gone is
# noticed, and a page notices that the server has.
_HEARTBEAT_S = 2.0
# For streams to say that the run has ended.
_GOODBYE_S = 0.6
_FULL = refuse(
    Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "too many connections, try again later",
        {"Retry-After": "5"},
    )
).encode(with_body=True, keeps_alive=False)
_BOUNDARY = "frame"
_JSON = "application/json"

_log = logging.getLogger("deeplab2_edge.serve")


class Server:
    """Answers requests. Lives in its loop.

    Args:
        listener: Where clients come in.
        gate: Who has the token.
        newest: What there is to see.
        limits: What clients may take.
    """

    def __init__(
        self, listener: Listener, gate: Gate, newest: Newest, limits: Limits
    ) -> None:
        self._listener = listener
        self._gate = gate
        self._newest = newest
        self._limits = limits
        self._names = known_names(listener)
        self._allowance = Allowance(limits.requests_per_s)
        self._cookie = f"live_view_{listener.port}"
        self._connections: dict[asyncio.Task[Any], Connection] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._stop = asyncio.Event()
        self.num_refused = 0
        self.num_dropped = 0

    @property
    def num_clients(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def stop(self) -> None:
        """Makes `run` return; to be called in the loop."""
        self._stop.set()

    async def run(self) -> None:
        """Serves until `stop`, then says goodbye to all streams."""
        self._newest.attach()
        server = await asyncio.start_server(
            self._meet, sock=self._listener.socket, limit=MAX_HEAD_BYTES
        )
        await self._stop.wait()
        server.close()
        self._newest.finish()
        for task in self._connections.keys() - self._streams:
            task.cancel()
        if self._streams:
            await asyncio.wait(set(self._streams), timeout=_GOODBYE_S)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _meet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(reader, writer, self._limits)
        connection.is_admitted = self._gate.is_open
        self._connections[task] = connection
        try:
            if self._is_full(connection):
                # Whoever is too many is not heard out: that would take a place, too.
                self.num_refused += 1
                await connection.send(_FULL)
            else:
                await self._converse(connection)
        except (OSError, asyncio.CancelledError):
            pass  # it left, or the server ends
        except TooSlow:
            self.num_dropped += 1
            _log.debug("%s: dropped, too slow", connection.address)
        except Exception:
            _log.exception("the live view could not answer")
        finally:
            writer.transport.abort()
            del self._connections[task]

    def _is_full(self, newcomer: Connection) -> bool:
        """Says whether there is no room for one more, who is counted already."""
        all_of_them = self._connections.values()
        if len(all_of_them) > self._limits.clients * _CONNECTIONS_PER_CLIENT:
            return True
        strangers = sum(
            other.address == newcomer.address and not other.is_admitted
            for other in all_of_them
        )
        return strangers > _MAX_STRANGERS

    async def _converse(self, connection: Connection) -> None:
        """Answers the requests of one connection, one after the other."""
        is_first = True
        while True:
            request = None
            try:
                request = await self._receive(connection, is_first=is_first)
                if request is None:
                    return
                if not await self._answer(connection, request):
                    return
            except Refusal as refusal:
                self.num_refused += 1
                _log.debug("%s: refused, %s", connection.address, refusal)
                has_body = request is None or request.method != "HEAD"
                await connection.part(
                    refuse(refusal).encode(with_body=has_body, keeps_alive=False)
                )
                return
            is_first = False

    async def _receive(
        self, connection: Connection, *, is_first: bool
    ) -> Request | None:
        try:
            request = await asyncio.wait_for(
                read_request(connection.reader), self._limits.request_s
            )
        except asyncio.TimeoutError:
            if not is_first:
                return None  # it has no more questions
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the request was not there within {self._limits.request_s:g} s",
            ) from None
        if request is not None and not self._allowance.take(connection.address):
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"at most {self._limits.requests_per_s:g} requests a second",
                {"Retry-After": "1"},
            )
        return request

    async def _answer(self, connection: Connection, request: Request) -> bool:
        """Answers a request; says whether another may follow."""
        self._check_origin(request)
        if request.path == "/healthz":
            response = Response(encode_json({"state": self._newest.state}), _JSON)
            return await connection.respond(request, response)
        headers = self._admit(request)
        connection.is_admitted = True
        if request.path in ("/events", "/stream.mjpg"):
            await self._stream(connection, request, headers)
            return False
        response = await self._look_up(request.path, headers)
        return await connection.respond(request, response)

    def _check_origin(self, request: Request) -> None:
        """Refuses what pages of others ask for, whom the browser's user only visits.

        Raises:
            Refusal: If the request is for another name, or not from our page.
        """
        is_loopback = self._listener.is_loopback
        host = request.headers["host"]
        if not is_known_host(host, self._names, is_loopback=is_loopback):
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server does not answer to that name, use "
                f"http://{self._listener.location}/",
            )
        site = request.headers.get("sec-fetch-site", "none")
        is_own = site in ("none", "same-origin")
        if not is_own and request.headers.get("sec-fetch-mode") != "navigate":
            raise Refusal(
                HTTPStatus.FORBIDDEN, "pages of other servers may not use this one"
            )

    def _admit(self, request: Request) -> dict[str, str]:
        """Lets in who has the token; gives headers for the answer.

        Raises:
            Refusal: If the request has no token, or a wrong one.
        """
        gate = self._gate
        if gate.is_open or gate.knows_session(request.cookie(self._cookie)):
            return {}
        if gate.knows_token(request.bearer):
            return {}
        if gate.knows_token(request.query.get("token")):
            cookie = f"{self._cookie}={gate.session}; Path=/; HttpOnly; SameSite=Strict"
            return {"Set-Cookie": cookie}
        raise Refusal(
            HTTPStatus.UNAUTHORIZED,
            "open the whole address that was printed, with ?token=, or send the header "
            "Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )

    async def _look_up(self, path: str, headers: dict[str, str]) -> Response:
        """Gives the answer at a path.

        Raises:
            Refusal: If there is nothing, or no frame yet.
        """
        if path == "/":
            page = load_page()
            policy = {"Content-Security-Policy": page.policy}
            return Response(
                page.html, "text/html; charset=utf-8", headers=headers | policy
            )
        frame = self._newest.current()
        if path == "/result.json":
            document = self._status(
                None if frame is None else await self._newest.json(frame)
            )
            return Response(document, _JSON, headers=headers)
        if path != "/frame.jpg":
            raise Refusal(HTTPStatus.NOT_FOUND, "nothing is here")
        if frame is None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "no frame yet", {"Retry-After": "1"}
            )
        headers = headers | {"X-Frame-Number": str(frame.number)}
        return Response(await self._newest.jpeg(frame), "image/jpeg", headers=headers)

    def _status(self, document: bytes | None) -> bytes:
        """Gives the state of the run, and the result of a frame if there is one."""
        fps = self._newest.fps
        status = {
            "state": self._newest.state,
            "frames_per_second": None if fps is None else round(fps, 2),
            "clients": self.num_clients,
        }
        text = encode_json(status)
        return text if document is None else text[:-1] + b"," + document[1:]

    async def _stream(
        self, connection: Connection, request: Request, headers: dict[str, str]
    ) -> None:
        """Sends frame after frame until the client goes or the server ends.

        Raises:
            Refusal: If too many watch already.
        """
        if self.num_clients >= self._limits.clients:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.num_clients} clients watch already, more are not served",
                {"Retry-After": "5"},
            )
        is_video = request.path == "/stream.mjpg"
        kind = "text/event-stream"
        if is_video:
            kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            head = encode_head(HTTPStatus.OK, kind, {"Connection": "close", **headers})
            await connection.send(head)
            if request.method == "HEAD":
                return
            await (self._send_video if is_video else self._send_events)(connection)
        finally:
            self._streams.discard(task)

    async def _send_events(self, connection: Connection) -> None:
        number, is_last = 0, False
        if self._newest.current() is None:
            await connection.send(b"data: " + self._status(None) + b"\n\n")
        while not is_last:
            document = None
            try:
                frame = await asyncio.wait_for(
                    self._newest.newer_than(number), _HEARTBEAT_S
                )
                if frame is not None:
                    document, number = await self._newest.json(frame), frame.number
            except asyncio.TimeoutError:
                pass
            is_last = self._newest.state == "ended"
            await connection.send(b"data: " + self._status(document) + b"\n\n")

    async def _send_video(self, connection: Connection) -> None:
        number = 0
        # Browsers show a picture when the next boundary comes, so that follows at once.
        start = f"--{_BOUNDARY}\r\n".encode()
        await connection.send(start)
        while self._newest.state != "ended":
            try:
                frame = await asyncio.wait_for(
                    self._newest.newer_than(number), _HEARTBEAT_S
                )
            except asyncio.TimeoutError:
                frame = self._newest.current()  # once more, as a sign of life
            if frame is None:
                continue
            jpeg, number = await self._newest.jpeg(frame), frame.number
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            await connection.send(head.encode() + jpeg + b"\r\n" + start)
