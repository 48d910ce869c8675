"""The live view in a browser."""

from collections.abc import Mapping

from deeplab2_edge.runtime.serve import LiveView
from deeplab2_edge.runtime.sinks.sink import Done


class Live:
    """Publishes the newest picture; nobody waits for those who look.

    Args:
        view: Open; closed with this sink.
    """

    def __init__(self, view: LiveView) -> None:
        self._view = view

    def write(self, done: Done) -> Mapping[str, str]:
        """Makes the frame the newest one."""
        frame = done.frame
        self._view.publish(done.result, done.picture, frame.source, frame.index)
        return {}

    def close(self) -> None:
        """Ends the live view."""
        self._view.close()
