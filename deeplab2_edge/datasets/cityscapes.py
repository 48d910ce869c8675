"""Cityscapes and the data sets that share its 19 training classes.

Sources: Cordts et al., The Cityscapes Dataset, CVPR 2016; Weber et al., STEP
(KITTI-STEP), NeurIPS 2021; Qiao et al., ViP-DeepLab (Cityscapes-DVPS), CVPR 2021.
"""

import dataclasses

from deeplab2_edge.datasets.info import ClassRow, info_from_rows

_CLASSES: tuple[ClassRow, ...] = (
    ("road", "stuff", "804080"),
    ("sidewalk", "stuff", "f423e8"),
    ("building", "stuff", "464646"),
    ("wall", "stuff", "66669c"),
    ("fence", "stuff", "be9999"),
    ("pole", "stuff", "999999"),
    ("traffic light", "stuff", "faaa1e"),
    ("traffic sign", "stuff", "dcdc00"),
    ("vegetation", "stuff", "6b8e23"),
    ("terrain", "stuff", "98fb98"),
    ("sky", "stuff", "4682b4"),
    ("person", "thing", "dc143c"),
    ("rider", "thing", "ff0000"),
    ("car", "thing", "00008e"),
    ("truck", "thing", "000046"),
    ("bus", "thing", "003c64"),
    ("train", "thing", "005064"),
    ("motorcycle", "thing", "0000e6"),
    ("bicycle", "thing", "770b20"),
)

# The label ids that annotation files and the benchmark server use.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

CITYSCAPES_PANOPTIC = info_from_rows(
    "cityscapes_panoptic",
    _CLASSES,
    category_ids=_LABEL_IDS,
    split_sizes={
        "train_fine": 2975,
        "val_fine": 500,
        "trainval_fine": 3475,
        "test_fine": 1525,
    },
)

# Two-frame samples: the sizes count pairs.
CITYSCAPES_DVPS = dataclasses.replace(
    CITYSCAPES_PANOPTIC,
    name="cityscapes_dvps",
    ignore_label=32,
    split_sizes={"train": 2000, "val": 250, "test": 250},
    is_video=True,
    is_depth=True,
    ignore_depth=0,
)

# Only persons and cars carry instance labels.
KITTI_STEP = dataclasses.replace(
    CITYSCAPES_PANOPTIC,
    name="kitti_step",
    thing_ids=(11, 13),
    split_sizes={"train": 5027, "val": 2981, "test": 11095},
    is_video=True,
    category_ids=None,
)
