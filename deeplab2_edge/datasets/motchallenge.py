"""MOTChallenge-STEP: seven classes, persons with instances.

Source: Weber et al., STEP: Segmenting and Tracking Every Pixel, NeurIPS 2021.
"""

from deeplab2_edge.datasets.info import ClassRow, info_from_rows

_CLASSES: tuple[ClassRow, ...] = (
    ("sidewalk", "stuff", "f423e8"),
    ("building", "stuff", "464646"),
    ("vegetation", "stuff", "6b8e23"),
    ("sky", "stuff", "4682b4"),
    ("person", "thing", "dc143c"),
    ("rider", "stuff", "ff0000"),
    ("bicycle", "stuff", "770b20"),
)

MOTCHALLENGE_STEP = info_from_rows(
    "motchallenge_step",
    _CLASSES,
    split_sizes={"train": 525, "val": 600, "test": 0},
    is_video=True,
)
