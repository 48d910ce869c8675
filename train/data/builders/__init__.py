"""Writes record files: published data sets, own folders, rendered scenes."""

from deeplab2_edge.train.data.builders.folder import FolderSource
from deeplab2_edge.train.data.builders.layouts import (
    LAYOUTS,
    Layout,
    OpenedSplit,
    open_split,
)
from deeplab2_edge.train.data.builders.options import LayoutOptions
from deeplab2_edge.train.data.builders.shards import (
    BuildSummary,
    RecordSource,
    build_records,
)
from deeplab2_edge.train.data.builders.synthetic import (
    SceneSource,
    VideoSource,
    write_scene_folder,
)

__all__ = [
    "LAYOUTS",
    "BuildSummary",
    "FolderSource",
    "Layout",
    "LayoutOptions",
    "OpenedSplit",
    "RecordSource",
    "SceneSource",
    "VideoSource",
    "build_records",
    "open_split",
    "write_scene_folder",
]
