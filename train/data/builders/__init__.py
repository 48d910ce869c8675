"""Writes record files from folders and from rendered scenes."""

from deeplab2_edge.train.data.builders.folder import FolderSource
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
    "BuildSummary",
    "FolderSource",
    "RecordSource",
    "SceneSource",
    "VideoSource",
    "build_records",
    "write_scene_folder",
]
