"""The public class: publish results, and look at them in a browser."""

import asyncio
import threading
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.serve.access import Gate
from deeplab2_edge.runtime.serve.address import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Listener,
    listen,
    resolve,
)
from deeplab2_edge.runtime.serve.connection import Limits
from deeplab2_edge.runtime.serve.newest import Newest
from deeplab2_edge.runtime.serve.server import Server

_REQUESTS_PER_S = 100.0
_REQUEST_S = 10.0
_ANSWER_S = 5.0
# Longer than a goodbye takes; a thread that hangs is left behind.
_JOIN_S = 1.0


@dataclass(frozen=True)
class LiveViewStats:
    """Says what a live view has done so far.

    Attributes:
        published: Frames that the pipeline gave.
        encoded: Of these, pictures that somebody wanted to see.
        clients: Streams open now.
        refused: Requests answered with an error.
        dropped: Clients that were too slow.
    """

    published: int
    encoded: int
    clients: int
    refused: int
    dropped: int


class LiveView:
    """Shows the newest result at an address, to few clients that may come and go.

    Nothing here makes the pipeline wait: `publish` leaves the frame and returns. A
    picture is encoded once, in a thread of its own, and only if a client wants it.

    Args:
        host: The loopback by default, which serves this machine alone. Any other
            address needs a token.
        port: 0 takes any free one; see `url`.
        token: Letters, digits and `-._~`, at least 12; `auto` makes one, which `url`
            contains.
        jpeg_quality: 1 to 100.
        max_side_px: Larger pictures are made smaller before they are sent.
        max_clients: Streams at once; an open page is one.
        max_fps: Frames per second that a client gets at most.
        max_requests_per_s: Of one address; more are answered with 429.
        request_s: Within which a request must arrive, whole; also the longest pause
            between two requests on one connection.
        answer_s: A client that takes longer to receive an answer or a frame is dropped.

    Raises:
        UsageError: If an argument makes no sense, or a token is missing.

    Example:
        >>> with LiveView(port=0) as live:
        ...     live.url.startswith("http://127.0.0.1:")
        True
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        token: str | None = None,
        jpeg_quality: int = 80,
        max_side_px: int = 1280,
        max_clients: int = 8,
        max_fps: float = 15.0,
        max_requests_per_s: float = _REQUESTS_PER_S,
        request_s: float = _REQUEST_S,
        answer_s: float = _ANSWER_S,
    ) -> None:
        _check(jpeg_quality=jpeg_quality, at_most=100)
        _check(max_side_px=max_side_px, at_most=1 << 15)
        _check(max_clients=max_clients, at_most=100)
        for name, value in {
            "max_fps": max_fps,
            "max_requests_per_s": max_requests_per_s,
            "request_s": request_s,
            "answer_s": answer_s,
        }.items():
            if not 0 < value < float("inf"):
                raise UsageError(f"{name} is {value}; it must be above 0")
        self._gate = Gate(token)
        _, _, is_loopback = resolve(host, port)
        if not is_loopback and self._gate.is_open:
            tunnel = port or DEFAULT_PORT
            raise UsageError(
                f"{host}:{port} can be reached from the network, so it needs a token: "
                "`--token auto` (token='auto') makes one and puts it into the address; "
                f"or serve at {DEFAULT_HOST}:{tunnel} and come through "
                f"`ssh -L {tunnel}:localhost:{tunnel} BOARD`"
            )
        self._address = host, port
        self._newest = Newest(
            max_fps=max_fps, jpeg_quality=jpeg_quality, max_side_px=max_side_px
        )
        self._limits = Limits(max_clients, max_requests_per_s, request_s, answer_s)
        self._listener: Listener | None = None
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __enter__(self) -> "LiveView":
        """Starts to serve.

        Raises:
            UsageError: If it has been started before.
            OutputError: If the port is taken or must not be used.
        """
        if self._listener is not None:
            raise UsageError("a live view can be opened once; make another one")
        self._listener = listen(*self._address)
        is_ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(is_ready,), name="live-view", daemon=True
        )
        self._thread.start()
        is_ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What to open in a browser; contains the token if there is one.

        Raises:
            UsageError: If the live view has not been opened.
        """
        if self._listener is None:
            raise UsageError("open the live view first: `with LiveView() as live:`")
        query = "" if self._gate.token is None else f"?token={self._gate.token}"
        return f"http://{self._listener.location}/{query}"

    @property
    def stats(self) -> LiveViewStats:
        """What has been done so far."""
        server = self._server
        return LiveViewStats(
            published=self._newest.num_published,
            encoded=self._newest.num_encoded,
            clients=server.num_clients if server else 0,
            refused=server.num_refused if server else 0,
            dropped=server.num_dropped if server else 0,
        )

    def publish(
        self,
        result: PanopticResult,
        picture: NDArray[np.uint8],
        source: str,
        index: int,
    ) -> None:
        """Makes a frame the newest one. Never waits; does nothing once closed.

        Args:
            result: What the page lists.
            picture: uint8 `[H, W, 3]` RGB, what the page shows, of any size; not
                copied, so it must not be changed afterwards.
            source: Name of where the frame comes from; user, password and query of an
                address are not shown.
            index: Of the frame within the source.

        Raises:
            DataError: If the picture has another shape or type.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(
                f"the picture is {picture.dtype} {list(picture.shape)}; expected uint8 "
                "[H, W, 3]"
            )
        if not self._is_closed:
            self._newest.put(result, picture, source, index)

    def close(self) -> None:
        """Tells all clients that the run has ended, and stops; within a second."""
        self._is_closed = True
        loop, server, thread = self._loop, self._server, self._thread
        if loop is not None and server is not None and thread is not None:
            try:
                loop.call_soon_threadsafe(server.stop)
            except RuntimeError:
                pass  # closed before
            thread.join(_JOIN_S)
        self._newest.close()

    def _serve(self, is_ready: threading.Event) -> None:
        try:
            asyncio.run(self._run(is_ready))
        finally:
            is_ready.set()

    async def _run(self, is_ready: threading.Event) -> None:
        assert self._listener is not None
        self._loop = asyncio.get_running_loop()
        self._server = Server(self._listener, self._gate, self._newest, self._limits)
        is_ready.set()
        await self._server.run()


def _check(*, at_most: int, **values: int) -> None:
    for name, value in values.items():
        if not 1 <= value <= at_most:
            raise UsageError(f"{name} is {value}; it must be 1 to {at_most}")
