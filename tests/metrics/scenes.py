"""Random panoptic maps that look a little like scenes."""

import numpy as np
from numpy.typing import NDArray


def random_scene(
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (60, 80),
    num_instances: int = 8,
    things: tuple[int, ...] = (1, 2),
    divisor: int = 1000,
    void: int = 255000,
) -> NDArray[np.int64]:
    """Draws stuff, rectangles of things, a crowd and void."""
    height, width = size
    scene = np.zeros(size, np.int64)
    scene[height // 2 :] = 3 * divisor
    for number in range(1, num_instances + 1):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        h, w = rng.integers(3, height // 3), rng.integers(3, width // 3)
        label = int(rng.choice(things)) * divisor + number
        scene[y : y + h, x : x + w] = label
    scene[:6, :20] = things[0] * divisor  # a crowd
    scene[-5:, :9] = void
    return scene


def disturbed(
    rng: np.random.Generator,
    scene: NDArray[np.int64],
    *,
    wrong_class: int = 2,
    divisor: int = 1000,
) -> NDArray[np.int64]:
    """Moves a scene a little, loses a segment and mistakes another."""
    moved = np.roll(scene, tuple(rng.integers(-3, 4, 2)), axis=(0, 1))
    labels = np.unique(moved[moved % divisor != 0])
    if labels.size > 2:
        lost, wrong = rng.choice(labels, 2, replace=False)
        moved[moved == lost] = 0
        moved[moved == wrong] = wrong_class * divisor + 77
    return moved
