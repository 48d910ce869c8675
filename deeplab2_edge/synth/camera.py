"""A pinhole camera above the ground plane.

World axes: x right, y up, z along the street (left-handed), metres. Camera axes:
x right, y down, z forward. Pixel centers lie at whole numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR = 0.3  # metres; geometry closer to the lens is cut away


@dataclass(frozen=True)
class Camera:
    """Holds position `[3]`, world-to-camera rotation `[3, 3]`, lens and image size."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    focal: float
    size: tuple[int, int]

    @property
    def center_xy(self) -> tuple[float, float]:
        return (self.size[1] - 1) / 2, (self.size[0] - 1) / 2

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        cx, cy = self.center_xy
        return np.array([[self.focal, 0, cx], [0, self.focal, cy], [0, 0, 1.0]])

    def to_camera(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turns world points `[N, 3]` into camera coordinates."""
        return np.asarray((points - self.position) @ self.rotation.T)

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Projects camera points `[N, 3]` with positive z to pixels `[N, 2]` (x, y)."""
        return np.asarray(
            points[:, :2] * (self.focal / points[:, 2:]) + np.array(self.center_xy)
        )

    def pixel_rays(
        self, first_row: int, last_row: int, *, step: int = 1
    ) -> tuple[NDArray[np.float32], ...]:
        """Returns world directions (x, y, z), each `[rows, W]`, of pixel rays.

        Directions have length 1 along the optical axis: a factor is a depth. With a
        step only every so many rows and columns are given, up to one beyond the end.
        """
        cx, cy = self.center_xy
        columns = np.arange(0, self.size[1] + step - 1, step)
        rows = np.arange(first_row, last_row + step - 1, step)
        u = ((columns - cx) / self.focal)[None, :]
        v = ((rows - cy) / self.focal)[:, None]
        r = self.rotation
        return tuple(
            (r[0, i] * u + r[1, i] * v + r[2, i]).astype(np.float32) for i in range(3)
        )

    def pixels_per_meter(self, point: NDArray[np.float64]) -> float:
        """Returns the scale at a world point, 0 behind the lens."""
        z = float(self.rotation[2] @ (point - self.position))
        return self.focal / z if z > NEAR else 0.0


def make_camera(
    position: NDArray[np.float64],
    *,
    yaw: float,
    pitch: float,
    roll: float,
    focal: float,
    size: tuple[int, int],
) -> Camera:
    """Builds a camera; yaw turns right, pitch looks down, all in radians."""
    sy, cy, sp, cp = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    forward = np.array([sy * cp, -sp, cy * cp])
    right = np.array([cy, 0.0, -sy])
    down = np.cross(right, forward)
    sr, cr = np.sin(roll), np.cos(roll)
    rotation = np.stack([cr * right + sr * down, cr * down - sr * right, forward])
    return Camera(position, rotation, focal, size)


def cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the cross product of two vectors `[3]`.

    `numpy.cross` takes ten times as long for one pair, and a scene needs hundreds.
    """
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def clip_near(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cuts a polygon `[N, 3]` in camera axes at the near plane; may return `[0, 3]`."""
    z = points[:, 2]
    if z.min() >= NEAR:
        return points
    kept: list[NDArray[np.float64]] = []
    for i in range(len(points)):
        a, b = points[i - 1], points[i]
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (NEAR - a[2]) / (b[2] - a[2]) * (b - a))
        if b[2] >= NEAR:
            kept.append(b)
    return np.array(kept).reshape(-1, 3)
