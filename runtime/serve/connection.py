"""One client's connection, with an end to everything that could take long."""

import asyncio
from dataclasses import dataclass

from deeplab2_edge.runtime.serve.http import Request, Response

# Of what a refused client still sends; unread bytes would make the kernel throw the
# refusal away.
_LEFTOVER_S = 0.5
_LEFTOVER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """Says what clients may take.

    Attributes:
        clients: Streams at once; a page is one.
        requests_per_s: Of one address, on the average.
        request_s: Within which a request must be there, whole.
        answer_s: Within which a client must have taken what is sent to it.
    """

    clients: int
    requests_per_s: float
    request_s: float
    answer_s: float


class TooSlow(Exception):
    """Says that a client does not take what is sent to it."""


class Connection:
    """Is a client's connection, of which little is ever waiting to be sent.

    Attributes:
        reader: Where its requests come from.
        address: Of the client.
        is_admitted: Whether it has shown the token, or need not.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: Limits,
    ) -> None:
        peer = writer.get_extra_info("peername")
        self.reader = reader
        self.is_admitted = False
        self.address = str(peer[0]) if peer else "?"
        self._writer = writer
        self._limits = limits
        # So `drain` waits until the kernel has all.
        writer.transport.set_write_buffer_limits(high=0)

    async def send(self, data: bytes) -> None:
        """Sends bytes.

        Raises:
            TooSlow: If the client does not take them in time.
        """
        self._writer.write(data)
        try:
            await asyncio.wait_for(self._writer.drain(), self._limits.answer_s)
        except asyncio.TimeoutError:
            raise TooSlow from None

    async def respond(self, request: Request, response: Response) -> bool:
        """Sends an answer; says whether another request may follow."""
        await self.send(
            response.encode(
                with_body=request.method != "HEAD", keeps_alive=request.keeps_alive
            )
        )
        return request.keeps_alive

    async def part(self, data: bytes) -> None:
        """Sends the last bytes and hears the client out, for a moment."""
        await self.send(data)
        self._writer.write_eof()
        left = _LEFTOVER_BYTES
        try:
            while left > 0:
                data = await asyncio.wait_for(self.reader.read(left), _LEFTOVER_S)
                if not data:
                    return
                left -= len(data)
        except asyncio.TimeoutError:
            return
