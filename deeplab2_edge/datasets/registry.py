"""The data sets a configuration can name.

A new data set needs no change here: write a description file and use its path as the
name, or call `register_dataset`.
"""

import os
from pathlib import Path

from deeplab2_edge.config.textformat import nearest
from deeplab2_edge.datasets.ade20k import ADE20K_PANOPTIC
from deeplab2_edge.datasets.cityscapes import (
    CITYSCAPES_DVPS,
    CITYSCAPES_PANOPTIC,
    KITTI_STEP,
)
from deeplab2_edge.datasets.coco import COCO_PANOPTIC
from deeplab2_edge.datasets.description import load_description, save_description
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.motchallenge import MOTCHALLENGE_STEP
from deeplab2_edge.datasets.semkitti import SEMKITTI_DVPS
from deeplab2_edge.datasets.street import CAMVID, SYNTHETIC_STREET
from deeplab2_edge.errors import ConfigError

__all__ = [
    "DatasetInfo",
    "dataset_names",
    "get_dataset",
    "load_description",
    "register_dataset",
    "save_description",
]

_registry: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        CITYSCAPES_PANOPTIC,
        KITTI_STEP,
        MOTCHALLENGE_STEP,
        CITYSCAPES_DVPS,
        SEMKITTI_DVPS,
        COCO_PANOPTIC,
        ADE20K_PANOPTIC,
        SYNTHETIC_STREET,
        CAMVID,
    )
}


def get_dataset(name_or_path: str | os.PathLike[str]) -> DatasetInfo:
    """Returns a registered data set, or the one a description file describes.

    Whatever ends in `.json` or holds a path separator is taken as a file, unless it
    is a registered name.

    Raises:
        ConfigError: If there is no such name (the nearest known ones are told), or the
            file is faulty.
    """
    name = os.fspath(name_or_path)
    if name in _registry:
        return _registry[name]
    if name.endswith(".json") or Path(name).name != name:
        return load_description(name)
    hint = nearest(name, _registry) or f"; known are {', '.join(dataset_names())}"
    raise ConfigError(
        f"data set {name!r} is not registered; expected one that is, or the path of "
        f"a description file (*.json){hint}"
    )


def register_dataset(info: DatasetInfo) -> None:
    """Makes a data set available by its name for the life of the process.

    Registering the same description again is fine.

    Raises:
        ConfigError: If the name is taken by a different description.
    """
    if _registry.setdefault(info.name, info) != info:
        raise ConfigError(
            f"data set {info.name!r} is registered with other values; expected a "
            "name that is free"
        )


def dataset_names() -> tuple[str, ...]:
    """Returns the registered names in alphabetical order."""
    return tuple(sorted(_registry))
