"""Samples the world of a seed: the street, its light and the camera's way.

What stands along the street is in `blocks`, what moves on it in `traffic`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth.camera import Camera, make_camera
from deeplab2_edge.synth.street import Light, Street
from deeplab2_edge.synth.textures import Rng, stream

FRAME_SECONDS = 0.1
# Streams of a world, second key after the seed.
GLOBAL_STREAM, STATIC_STREAM, TRAFFIC_STREAM = 0, 1, 2


@dataclass(frozen=True)
class World:
    """Holds what is fixed over time in the world of a seed.

    Attributes:
        crossing: s of a zebra crossing, or None; traffic waits in front of it.
        weights: Share of blocks with (houses, front gardens, green) behind the
            pavement, for each side.
    """

    seed: int
    street: Street
    light: Light
    camera_l: float
    camera_height: float
    camera_angles: tuple[float, float, float]
    focal_factor: float
    speed: float
    flow: tuple[float, float]
    crossing: float | None
    weights: NDArray[np.float64]

    def camera(self, time: float, size: tuple[int, int]) -> Camera:
        """Returns the camera at a time in seconds for an image `(height, width)`."""
        s = self.speed * time
        yaw, pitch, roll = self.camera_angles
        sway = 0.004 * np.sin(1.7 * time) if self.speed else 0.0
        return make_camera(
            self.street.point(self.camera_l, s, self.camera_height),
            yaw=yaw + float(np.arctan(self.street.slope(s + 4))),
            pitch=pitch + sway,
            roll=roll,
            focal=self.focal_factor * float(np.sqrt(2.0 * size[0] * size[1])),
            size=size,
        )


def make_world(seed: int) -> World:
    """Draws the world of a seed."""
    rng = stream(seed, GLOBAL_STREAM)
    lane = rng.uniform(2.9, 3.5)
    parking = tuple(float(p) for p in np.where(rng.random(2) < 0.6, 2.2, 0.0))
    lanes = 2 if rng.random() < 0.15 else 1
    drive = 1.0 if rng.random() < 0.6 else -1.0  # side of the road traffic keeps to
    left = -(lane * lanes + parking[0] + 0.2)
    right = lane * lanes + parking[1] + 0.2
    pavement = (float(rng.uniform(2.2, 4.2)), float(rng.uniform(2.2, 4.2)))
    curvature = float(rng.choice([0.0, rng.normal(0, 0.004)]))
    street = Street(
        curvature, 90.0, left, right, pavement, float(lane), (parking[0], parking[1])
    )
    has_crossing = rng.random() < 0.3
    waits = has_crossing and rng.random() < 0.8
    speed = 0.0 if waits else float(rng.uniform(2.0, 9.0))
    flow = (speed, 0.0 if waits else -float(rng.uniform(3.0, 9.0)))
    on_pavement = rng.random() < 0.15
    l = drive * lane * 0.5 + rng.normal(0, 0.3)  # noqa: E741
    if on_pavement:
        l = drive * (right if drive > 0 else -left) + drive * 1.0  # noqa: E741
        speed = speed * 0.2
    yaw = rng.normal(0, 0.07) - (drive * 0.12 if on_pavement else 0.0)
    weights = rng.dirichlet([2.2, 1.6, 1.3], 2)
    return World(
        seed=seed,
        street=street,
        light=_make_light(rng),
        camera_l=float(l),
        camera_height=float(rng.uniform(1.35, 2.1)),
        camera_angles=(
            float(yaw),
            float(rng.uniform(-0.03, 0.09)),
            float(rng.normal(0, 0.012)),
        ),
        focal_factor=float(rng.uniform(0.8, 1.12)),
        speed=float(speed),
        flow=(flow[0] * drive, flow[1] * drive) if drive > 0 else (flow[0], flow[1]),
        crossing=float(rng.uniform(8, 16)) if has_crossing else None,
        weights=weights,
    )


def _make_light(rng: Rng) -> Light:
    kind = rng.random()
    elevation = rng.uniform(0.45, 1.15)
    azimuth = rng.uniform(-np.pi, np.pi)
    if kind < 0.35:  # overcast
        ambient = np.array([0.96, 0.99, 1.04]) * rng.uniform(0.9, 1.1)
        sun = np.array([0.16, 0.15, 0.14])
    elif kind < 0.88:  # sunshine
        ambient = np.array([0.58, 0.61, 0.68]) * rng.uniform(0.85, 1.1)
        sun = np.array([0.72, 0.67, 0.58]) * rng.uniform(0.8, 1.1)
    else:  # dusk
        elevation = rng.uniform(0.2, 0.4)
        ambient = np.array([0.55, 0.53, 0.62]) * rng.uniform(0.85, 1.15)
        sun = np.array([0.5, 0.32, 0.18])
    level = np.cos(elevation)
    to_sun = np.array(
        [level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth)]
    )
    return Light(to_sun, ambient, sun, 0.35 <= kind < 0.88, kind >= 0.88)
