"""Where results go: files, data sets, a window, a browser; one file per kind."""

from deeplab2_edge.runtime.sinks.images import ImageFiles
from deeplab2_edge.runtime.sinks.lines import JsonLines
from deeplab2_edge.runtime.sinks.sink import Done, Quit, Sink, closing
from deeplab2_edge.runtime.sinks.videos import Videos

__all__ = ["Done", "ImageFiles", "JsonLines", "Quit", "Sink", "Videos", "closing"]
