"""Cityscapes as unpacked and prepared by its own tools (cityscapesScripts).

    leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
    gtFine/cityscapes_panoptic_<split>_trainId.json, and a folder of that name
    gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_labelTrainIds.png

The panoptic files come from `csCreatePanopticImgs --use-train-id`, the label images
from `csCreateTrainIdLabelImgs`.
"""

from pathlib import Path

from deeplab2_edge.datasets.folders import FolderDataset, Sample
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.labels import PngLabel
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
    "leftImg8bit/<split>/<city>/*_leftImg8bit.png and "
    "gtFine/cityscapes_panoptic_<split>_trainId.json with a folder of the same name "
    "(made by csCreatePanopticImgs --use-train-id of cityscapesScripts)"
)
_SEMANTIC_LAYOUT = (
    "gtFine/<split>/<city>/*_gtFine_labelTrainIds.png beside leftImg8bit/<split> "
    "(made by csCreateTrainIdLabelImgs of cityscapesScripts)"
)
_IMAGE, _CLASSES = "_leftImg8bit", "_gtFine_labelTrainIds.png"


def open_cityscapes(
    info: DatasetInfo, root: Path, split: str, options: LayoutOptions
) -> FolderSource:
    """Opens a split; a record's name is `<city>_<seq>_<frame>`.

    Raises:
        DataError: If files are missing or do not belong together.
    """
    image_dir = require_dir(root / "leftImg8bit" / split, LAYOUT)
    if split == "test":
        return open_images(image_dir, info, name_suffix=_IMAGE)
    if options.semantic_only:
        label_dir = require_dir(root / "gtFine" / split, _SEMANTIC_LAYOUT)
        return _open_semantic(image_dir, label_dir, info)
    annotation = root / "gtFine" / f"cityscapes_panoptic_{split}_trainId.json"
    require_dir(require_file(annotation, LAYOUT).with_suffix(""), LAYOUT)
    return open_annotated(
        root,
        annotation,
        image_dir,
        info,
        crowd_is_ignored=not options.keeps_crowd,
        checks_areas=True,
    )


def _open_semantic(image_dir: Path, label_dir: Path, info: DatasetInfo) -> FolderSource:
    images = open_images(image_dir, info, name_suffix=_IMAGE).dataset.samples
    samples = []
    for image in images:
        city = image.image_path.parent.name
        path = require_file(
            label_dir / city / (image.name + _CLASSES), _SEMANTIC_LAYOUT
        )
        label = PngLabel(path, info, modes=("gray",))
        samples.append(Sample(image.name, image.image_path, label))
    folder = FolderDataset(info, tuple(samples), image_dir, label_dir)
    return FolderSource(folder, ("semantic only",))
