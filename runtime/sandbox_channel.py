"""How a process talks with its sandboxed worker: JSON and raw bytes, nothing else.

A message is a header of fixed size, a JSON document and bytes that the document
describes. Neither side unpickles what the other one sends.
"""

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from deeplab2_edge.runtime.messages import Document

MAX_JSON_BYTES = 4 << 20

_HEADER = struct.Struct("<4sIQ")  # magic, bytes of JSON, bytes behind it
_MAGIC = b"DLE1"
_BUFFER_BYTES = 1 << 20  # most images and heads fit, as far as the system allows
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class ChannelClosed(Exception):
    """Says that the other side is gone."""


class ChannelLate(Exception):
    """Says that the other side did not do its part in time."""


class Channel:
    """Sends and receives messages over a socket.

    A pipe would not do: the command line lets the signal of a broken one end it.

    Args:
        connection: Of a pair; becomes non-blocking.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_BYTES)

    def send(
        self,
        document: Document,
        parts: Sequence[Any] = (),
        seconds: float | None = None,
    ) -> None:
        """Sends a message.

        Args:
            document: What JSON can hold.
            parts: Contiguous arrays or bytes.
            seconds: How long it may take; None: as long as it takes.

        Raises:
            ChannelClosed: If nobody reads any more.
            ChannelLate: If time is over.
        """
        text = json.dumps(document).encode()
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        size = sum(len(view) for view in views)
        end = _end(seconds)
        for view in (memoryview(_HEADER.pack(_MAGIC, len(text), size) + text), *views):
            while view:
                _wait(self._connection, select.POLLOUT, end)
                try:
                    view = view[self._connection.send(view, _NO_SIGNAL) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise ChannelClosed from None

    def receive(
        self,
        place: Callable[[Document, int], Sequence[Any]],
        seconds: float | None = None,
    ) -> Document:
        """Receives a message.

        Args:
            place: Gets the document and the number of bytes behind it, and gives
                contiguous arrays or bytearrays to write them into, which hold exactly
                so many.
            seconds: How long it may take; None: as long as it takes.

        Returns:
            The document.

        Raises:
            ChannelClosed: If the other side is gone, or sends something else.
            ChannelLate: If time is over.
        """
        end = _end(seconds)
        header = bytearray(_HEADER.size)
        self._fill(header, end)
        magic, length, size = _HEADER.unpack(header)
        if magic != _MAGIC or length > MAX_JSON_BYTES:
            raise ChannelClosed
        text = bytearray(length)
        self._fill(text, end)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise ChannelClosed from None
        if not isinstance(document, dict):
            raise ChannelClosed
        for part in place(document, size):
            self._fill(part, end)
        return document

    def _fill(self, part: Any, end: float | None) -> None:
        view = memoryview(part).cast("B") if len(part) else memoryview(b"")
        while view:
            _wait(self._connection, select.POLLIN, end)
            try:
                count = self._connection.recv_into(view)
            except BlockingIOError:
                continue
            except OSError:
                raise ChannelClosed from None
            if not count:
                raise ChannelClosed
            view = view[count:]


def _end(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _wait(connection: socket.socket, event: int, end: float | None) -> None:
    poll = select.poll()
    poll.register(connection, event)
    left = None if end is None else max(end - time.monotonic(), 0) * 1000
    if not poll.poll(left):
        raise ChannelLate
