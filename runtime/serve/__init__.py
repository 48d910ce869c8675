"""Shows results in a browser while they are made: `run --serve`, for headless boards.

from deeplab2_edge.runtime.serve import LiveView

with LiveView(port=8765) as live:
    print(live.url)
    for index, frame in enumerate(frames):
        result = segmenter(frame)
        live.publish(result, result.overlay(), "camera", index)

One thread runs an asyncio loop that serves all clients, another one encodes pictures.
The standard library's `http.server` would take a thread for each client, could not end
one that sends its request byte by byte, and is not meant for hostile networks. A loop
puts one deadline around a whole request and around a whole answer, and it needs about
as many lines, since only GET and HEAD without a body are understood.
"""

from deeplab2_edge.runtime.serve.address import parse_address
from deeplab2_edge.runtime.serve.live_view import LiveView, LiveViewStats

__all__ = ["LiveView", "LiveViewStats", "parse_address"]
