"""Street scenes in one class order: rendered ones and CamVid.

The order is shared so that weights learned on rendered scenes fit CamVid. Colors are
those of the Cityscapes classes. CamVid: Brostow, Fauqueur, Cipolla, Semantic object
classes in video, 2009, in the 11-class split that is in common use.
"""

import dataclasses

from deeplab2_edge.datasets.info import ClassRow, info_from_rows

_CLASSES: tuple[ClassRow, ...] = (
    ("sky", "stuff", "4682b4"),
    ("building", "stuff", "464646"),
    ("pole", "stuff", "999999"),
    ("road", "stuff", "804080"),
    ("pavement", "stuff", "f423e8"),
    ("vegetation", "stuff", "6b8e23"),
    ("sign", "stuff", "dcdc00"),
    ("fence", "stuff", "be9999"),
    ("car", "thing", "00008e"),
    ("pedestrian", "thing", "dc143c"),
    ("cyclist", "thing", "770b20"),
)

CAMVID = info_from_rows(
    "camvid",
    _CLASSES,
    category_ids=range(1, 12),
    split_sizes={"train": 367, "val": 101},
)

# Scenes are rendered on demand from a seed, so the splits have no size.
SYNTHETIC_STREET = dataclasses.replace(
    CAMVID,
    name="synthetic_street",
    split_sizes={},
    is_video=True,
    is_depth=True,
    ignore_depth=0,
)
