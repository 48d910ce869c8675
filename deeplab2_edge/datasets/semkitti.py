"""SemKITTI-DVPS: the 19 SemanticKITTI classes, projected into images, with depth.

Sources: Behley et al., SemanticKITTI, ICCV 2019 (class list); Qiao et al., ViP-DeepLab,
CVPR 2021. The colors are those of the Cityscapes classes with the same ids, as in the
published visualizations.
"""

from deeplab2_edge.datasets.info import ClassRow, info_from_rows

_CLASSES: tuple[ClassRow, ...] = (
    ("car", "thing", "804080"),
    ("bicycle", "thing", "f423e8"),
    ("motorcycle", "thing", "464646"),
    ("truck", "thing", "66669c"),
    ("other-vehicle", "thing", "be9999"),
    ("person", "thing", "999999"),
    ("bicyclist", "thing", "faaa1e"),
    ("motorcyclist", "thing", "dcdc00"),
    ("road", "stuff", "6b8e23"),
    ("parking", "stuff", "98fb98"),
    ("sidewalk", "stuff", "4682b4"),
    ("other-ground", "stuff", "dc143c"),
    ("building", "stuff", "ff0000"),
    ("fence", "stuff", "00008e"),
    ("vegetation", "stuff", "000046"),
    ("trunk", "stuff", "003c64"),
    ("terrain", "stuff", "005064"),
    ("pole", "stuff", "0000e6"),
    ("traffic-sign", "stuff", "770b20"),
)

SEMKITTI_DVPS = info_from_rows(
    "semkitti_dvps",
    _CLASSES,
    label_divisor=65536,
    split_sizes={"train": 19120, "val": 4070, "test": 4340},
    is_video=True,
    is_depth=True,
    ignore_depth=0,
)
