"""ADE20K panoptic: the images of SceneParsing, annotations as prepared for Mask2Former.

images/training/*.jpg, images/validation/*.jpg
ade20k_panoptic_{train,val}.json, and a folder of that name
"""

from pathlib import Path

from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.train.data.builders.folder import FolderSource, open_annotated
from deeplab2_edge.train.data.builders.options import (
    LayoutOptions,
    require_dir,
    require_file,
)

LAYOUT = (
    "images/training/*.jpg, images/validation/*.jpg and ade20k_panoptic_<split>.json "
    "with a folder of the same name (made by prepare_ade20k_pan_seg.py of Mask2Former)"
)
_IMAGE_DIRS = {"train": "training", "val": "validation"}


def open_ade20k(
    info: DatasetInfo, root: Path, split: str, options: LayoutOptions
) -> FolderSource:
    """Opens a split; a class is the category plus one, and category 255 is void.

    Areas are not compared: the converter writes those of the full-size pictures.

    Raises:
        DataError: If files are missing or do not belong together.
    """
    image_dir = require_dir(root / "images" / _IMAGE_DIRS[split], LAYOUT)
    annotation = require_file(root / f"ade20k_panoptic_{split}.json", LAYOUT)
    require_dir(annotation.with_suffix(""), LAYOUT)
    return open_annotated(
        root,
        annotation,
        image_dir,
        info,
        crowd_is_ignored=not options.keeps_crowd,
        checks_areas=False,
    )
