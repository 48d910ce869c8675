"""The result of rendering: an image with exact ground truth, and its label words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError

# One class order with `synthetic_street` and `camvid` of the registry.
CLASS_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "vegetation",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
)
SKY, BUILDING, POLE, ROAD, PAVEMENT, VEGETATION, SIGN, FENCE = range(8)
CAR, PEDESTRIAN, CYCLIST = range(8, 11)
THING_IDS = (CAR, PEDESTRIAN, CYCLIST)
LABEL_DIVISOR = 1000
IGNORE_LABEL = 255
VOID = IGNORE_LABEL * LABEL_DIVISOR


@dataclass(frozen=True)
class Scene:
    """Holds one rendered picture and what is true about it.

    Attributes:
        image: `[H, W, 3]` uint8, RGB.
        panoptic: `[H, W]` int32, `class * 1000 + instance`; instance is 0 on stuff
            and at least 1 on things; 255000 where nothing is labeled.
        depth: `[H, W]` float32, metres along the optical axis; 0 on sky.
        intrinsics: `[3, 3]` float64 pinhole matrix in pixels; pixel centers lie at
            whole numbers.

    Raises:
        DataError: If shapes or types disagree.
    """

    image: NDArray[np.uint8]
    panoptic: NDArray[np.int32]
    depth: NDArray[np.float32]
    intrinsics: NDArray[np.float64]

    def __post_init__(self) -> None:
        size = self.panoptic.shape
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...], type]] = {
            "image": (self.image, (*size, 3), np.uint8),
            "panoptic": (self.panoptic, size, np.int32),
            "depth": (self.depth, size, np.float32),
            "intrinsics": (self.intrinsics, (3, 3), np.float64),
        }
        if len(size) != 2:
            raise DataError(f"Scene.panoptic: shape is {size}; must be [H, W]")
        for name, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype:
                raise DataError(
                    f"Scene.{name}: is {array.dtype} {array.shape}; "
                    f"must be {np.dtype(dtype)} {shape}"
                )
