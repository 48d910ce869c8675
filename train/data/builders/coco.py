"""COCO panoptic as published (2017 images, panoptic annotations).

train2017/*.jpg, val2017/*.jpg, test2017/*.jpg
annotations/panoptic_{train,val}2017.json, and a folder of that name
"""

from pathlib import Path

from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.train.data.builders.folder import (
    FolderSource,
    open_annotated,
    open_images,
)
from deeplab2_edge.train.data.builders.options import (
    LayoutOptions,
    require_dir,
    require_file,
)

LAYOUT = (
    "<split>2017/*.jpg and annotations/panoptic_<split>2017.json with a folder of "
    "the same name (unpacked from panoptic_<split>2017.zip)"
)


def open_coco(
    info: DatasetInfo, root: Path, split: str, options: LayoutOptions
) -> FolderSource:
    """Opens a split; categories become contiguous classes, 0 is void.

    Raises:
        DataError: If files are missing or do not belong together.
    """
    image_dir = require_dir(root / f"{split}2017", LAYOUT)
    if split == "test":
        return open_images(image_dir, info)
    annotation = root / "annotations" / f"panoptic_{split}2017.json"
    require_dir(require_file(annotation, LAYOUT).with_suffix(""), LAYOUT)
    return open_annotated(
        root,
        annotation,
        image_dir,
        info,
        crowd_is_ignored=not options.keeps_crowd,
        checks_areas=True,
    )
