"""The street every object stands on, and the light it stands in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KERB_HEIGHT = 0.12  # metres


@dataclass(frozen=True)
class Street:
    """Describes the course and the cross-section of a street, in metres.

    Places are (l, s): s runs along the street, l across it (right positive, 0 on the
    center line).

    Attributes:
        curvature: Of the center line near s = 0, 1/metres.
        bend_length: Beyond this s the street goes on straight.
        left, right: l of the kerbs; left is negative.
        pavement: Width of the pavements (left, right).
        lane: Lane width.
        parking: Width of the parking strips (left, right), 0 without.
    """

    curvature: float
    bend_length: float
    left: float
    right: float
    pavement: tuple[float, float]
    lane: float
    parking: tuple[float, float]

    def center(self, s: NDArray[np.floating] | float) -> NDArray[np.floating]:
        """Returns x of the center line at s."""
        bent = np.minimum(s, self.bend_length)
        rest = np.maximum(s - bent, 0)
        return np.asarray(
            self.curvature * (0.5 * bent * bent + self.bend_length * rest)
        )

    def slope(self, s: float) -> float:
        """Returns dx/ds of the center line."""
        return self.curvature * min(s, self.bend_length)

    def point(self, l: float, s: float, y: float = 0.0) -> NDArray[np.float64]:  # noqa: E741
        """Returns the world point `[3]` at place (l, s) and height y."""
        return np.array([float(self.center(s)) + l, y, s])

    def forward(self, s: float) -> NDArray[np.float64]:
        """Returns the unit direction of the street `[3]`."""
        direction = np.array([self.slope(s), 0.0, 1.0])
        return np.asarray(direction / np.linalg.norm(direction))


@dataclass(frozen=True)
class Light:
    """Describes daylight: the direction to the sun and color factors.

    Attributes:
        to_sun: `[3]` unit vector.
        ambient, sun: `[3]` RGB factors; about 1 together on a lit wall.
        has_shadows: False under an overcast sky.
        is_dusk: Windows and lamps are lit.
    """

    to_sun: NDArray[np.float64]
    ambient: NDArray[np.float64]
    sun: NDArray[np.float64]
    has_shadows: bool
    is_dusk: bool

    def on(self, normal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the RGB factor on a surface with an outward unit normal."""
        return np.asarray(
            self.ambient + self.sun * max(float(normal @ self.to_sun), 0.0)
        )

    @property
    def diffuse(self) -> NDArray[np.float64]:
        """Returns the RGB factor on round things that face all ways."""
        return np.asarray(self.ambient + 0.5 * self.sun)

    def shadow(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Throws points `[N, 3]` onto the ground along the sunlight."""
        reach = points[:, 1:2] / self.to_sun[1]
        return np.asarray(points - reach * self.to_sun)
