"""Where images come from: files, folders, videos, cameras, streams and pipes.

One file per kind of source. Each gives images; `Source` numbers and times them.
"""

from deeplab2_edge.runtime.sources.find import folder_images, open_sources
from deeplab2_edge.runtime.sources.source import Frame, Source, SourceOptions

__all__ = ["Frame", "Source", "SourceOptions", "folder_images", "open_sources"]
