"""What stands along a street: houses, trees, hedges, fences, poles, signs, bins."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth import textures
from deeplab2_edge.synth.canvas import Canvas
from deeplab2_edge.synth.scene import (
    BUILDING,
    FENCE,
    LABEL_DIVISOR,
    POLE,
    SIGN,
    VEGETATION,
    VOID,
)
from deeplab2_edge.synth.street import KERB_HEIGHT, Light, Street

UP = np.array([0.0, 1.0, 0.0])
Points = NDArray[np.float64]
# Metres; beyond, posts would be hair lines and signs a few pixels.
_POLE_REACH, _SIGN_REACH = 58.0, 42.0
_MIN_POLE_PIXELS = 2.8  # a thinner pole could not be learned nor seen
_ROOF_OVERHANG = 1.08  # length of a roof as a share of what lies above the house
_SHADOW_REACH = 60.0  # metres; a low sun would throw shadows without end


def convex_shadow(light: Light, points: Points) -> list[Points]:
    """Returns the ground shadow of a convex body as world polygons."""
    if not light.has_shadows:
        return []
    thrown = light.shadow(points)
    if np.ptp(thrown[:, [0, 2]], axis=0).max() > _SHADOW_REACH:
        return []
    hull = cv2.convexHull(thrown[:, [0, 2]].astype(np.float32))[:, 0]
    return [np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], 1).astype(float)]


def facing(canvas: Canvas, base: Points) -> Points:
    """Returns the horizontal unit vector to the right, seen from the camera."""
    away = base - canvas.camera.position
    right = np.array([away[2], 0.0, -away[0]])
    return np.asarray(right / max(float(np.linalg.norm(right)), 1e-6))


def around(base: Points, radius: float, height: float) -> Points:
    """Returns the corners of an upright box on the ground."""
    across = np.array([[-radius, 0, -radius], [radius, 0, -radius]])
    foot = base + np.concatenate([across, -across])
    return np.concatenate([foot, foot + UP * height])


@dataclass(frozen=True)
class Building:
    """Is a box on one side of the street, from s0 to s1, behind the line l."""

    street: Street
    seed: tuple[int, ...]
    l: float  # noqa: E741
    s0: float
    s1: float
    height: float
    depth: float
    has_shop: bool
    has_gable: bool

    @property
    def base(self) -> Points:
        return self.street.point(self.l, self.s0)

    def _corners(self) -> tuple[Points, Points, Points]:
        near = self.street.point(self.l, self.s0)
        far = self.street.point(self.l, self.s1)
        along = (far - near) / np.linalg.norm(far - near)
        out = np.array([along[2], 0.0, -along[0]]) * np.sign(self.l) * self.depth
        return near, far, out

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        near, far, out = self._corners()
        foot = np.stack([near, far, far + out, near + out])
        roof = UP * (self.height + (3.5 if self.has_gable else 0.0))
        return np.concatenate([foot, foot + roof])

    def shadow(self, light: Light) -> list[Points]:
        near, far, out = self._corners()
        foot = np.stack([near, far, far + out, near + out])
        return convex_shadow(light, np.concatenate([foot, foot + UP * self.height]))

    def draw(self, canvas: Canvas, light: Light) -> None:
        near, far, out = self._corners()
        up = UP * self.height
        along = far - near
        if canvas.may_show(np.stack([near, far, far + up, near + up])):
            self._draw_front(canvas, light, near, along, out)
        # The front draws the color of its wall first, too.
        color = textures.wall_color(textures.stream(*self.seed)) * 0.95
        unit = along / np.linalg.norm(along)
        for foot, normal in ((near, -unit), (far, unit)):
            if normal @ (canvas.camera.position - foot) > 0:
                self._draw_end(canvas, light.on(normal), foot, out, color)
        if self.has_gable:
            self._draw_roof(canvas, light, near + up, along, out)

    def _draw_front(
        self, canvas: Canvas, light: Light, near: Points, along: Points, out: Points
    ) -> None:
        front = textures.facade(
            textures.stream(*self.seed),
            float(np.linalg.norm(along)),
            self.height,
            is_lit=light.is_dusk,
            has_shop=self.has_shop,
        )
        # Seen from the street, a left front runs away to the right.
        corner, across = (near, along) if self.l < 0 else (near + along, -along)
        up = UP * self.height
        factor = light.on(-out / self.depth)
        label = BUILDING * LABEL_DIVISOR
        canvas.draw_texture(corner + up, across, -up, front, label, light=factor)

    def _draw_end(
        self,
        canvas: Canvas,
        light: NDArray[np.float64],
        foot: Points,
        out: Points,
        color: NDArray[np.float32],
    ) -> None:
        up, rise = UP * self.height, self._rise()
        label = BUILDING * LABEL_DIVISOR
        top = foot + up
        if canvas.may_show(np.stack([foot, foot + out, top + out, top])):
            scale = textures.FACADE_PIXELS_PER_METER // 2
            rows, columns = int(self.height * scale), int(self.depth * scale)
            wall = textures.wall(textures.stream(*self.seed, 1), rows, columns, color)
            canvas.draw_texture(top, out, -up, wall, label, light=light)
        if self.has_gable:
            triangle = np.stack([top, top + out / 2 + rise, top + out])
            canvas.fill_polygon(triangle, color * light, label)

    def _draw_roof(
        self, canvas: Canvas, light: Light, eave: Points, along: Points, out: Points
    ) -> None:
        slope = out / 2 + self._rise()
        quad = np.stack([eave, eave + along, eave + along + slope, eave + slope])
        if not canvas.may_show(quad):
            return
        width = int(float(np.linalg.norm(along)) * 8)
        tiles = textures.roof(textures.stream(*self.seed, 2), 48, width)
        normal = (UP - out / self.depth) / np.sqrt(2)
        canvas.draw_texture(
            eave + slope,
            along,
            -slope * _ROOF_OVERHANG,
            tiles,
            BUILDING * LABEL_DIVISOR,
            light=light.on(normal),
        )

    def _rise(self) -> Points:
        return UP * min(self.depth * 0.4, 3.5)


@dataclass(frozen=True)
class Tree:
    """Is a tree or a bush, drawn flat and turned to the camera."""

    base: Points
    seed: tuple[int, ...]
    height: float

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        return around(self.base, 0.38 * self.height, self.height)

    def shadow(self, light: Light) -> list[Points]:
        if not light.has_shadows:
            return []
        rng = textures.stream(*self.seed, 1)
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        radius = self.height * 0.3 * rng.uniform(0.7, 1.1, 14)
        middle = self.base + UP * self.height * 0.68
        ring = middle + np.stack(
            [
                radius * np.cos(angles),
                radius * np.sin(angles) * 0.8,
                radius * np.sin(angles),
            ],
            1,
        )
        thrown = light.shadow(ring)
        foot = self.base + np.array([[-0.15, 0, 0], [0.15, 0, 0]])
        top = light.shadow(middle[None])[0]
        trunk = np.stack([foot[0], foot[1], top + [0.15, 0, 0], top - [0.15, 0, 0]])
        return [thrown, trunk]

    def draw(self, canvas: Canvas, light: Light) -> None:
        seen = canvas.camera.pixels_per_meter(self.base) * self.height
        texture = textures.tree(
            textures.stream(*self.seed), int(np.clip(seen, 24, 240))
        )
        right = facing(canvas, self.base) * self.height * 0.75
        canvas.draw_texture(
            self.base - right / 2 + UP * self.height,
            right,
            -UP * self.height,
            texture,
            VEGETATION * LABEL_DIVISOR,
            light=light.diffuse,
        )


@dataclass(frozen=True)
class Barrier:
    """Is a fence or a hedge along the line l from s0 to s1."""

    street: Street
    seed: tuple[int, ...]
    l: float  # noqa: E741
    s0: float
    s1: float
    height: float
    is_hedge: bool

    @property
    def base(self) -> Points:
        return self.street.point(self.l, (self.s0 + self.s1) / 2)

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        near = self.street.point(self.l, self.s0)
        far = self.street.point(self.l, self.s1)
        depth = np.array([np.sign(self.l), 0.0, 0.0])
        foot = np.stack([near, far, far + depth, near + depth])
        return np.concatenate([foot, foot + UP * (self.height + KERB_HEIGHT)])

    def shadow(self, light: Light) -> list[Points]:
        ends = np.stack(
            [self.street.point(self.l, self.s0), self.street.point(self.l, self.s1)]
        )
        return convex_shadow(light, np.concatenate([ends, ends + UP * self.height]))

    def draw(self, canvas: Canvas, light: Light) -> None:
        rng = textures.stream(*self.seed)
        near = self.street.point(self.l, self.s0)
        far = self.street.point(self.l, self.s1)
        up = UP * (self.height + KERB_HEIGHT)
        length = float(np.linalg.norm(far - near))
        along = (far - near) / length
        outward = np.array([along[2], 0.0, -along[0]]) * -np.sign(self.l)
        width, height = int(length * 32), int(self.height * 40)
        if self.is_hedge:
            color = textures.foliage_color(rng)
            depth = -outward * 0.9
            front = np.full((height, width // 2, 4), 255, np.uint8)
            front[..., :3] = textures.foliage(rng, height, width // 2, color)
            bumps = height * (
                0.06 + 0.04 * textures.noise_patch(rng, 1, width // 2, 3)[0]
            )
            front[np.arange(height)[:, None] < bumps[None], 3] = 0
            light_front = light.on(outward)
            canvas.draw_texture(
                near + up,
                far - near,
                -up,
                front,
                VEGETATION * LABEL_DIVISOR,
                light=light_front,
            )
            end = np.ascontiguousarray(front[:, :height])
            canvas.draw_texture(
                near + up,
                depth,
                -up,
                end,
                VEGETATION * LABEL_DIVISOR,
                light=light.on(-along),
            )
            top = np.ascontiguousarray(front[: height // 2, :, :3])
            canvas.draw_texture(
                near + up * 0.93,
                far - near,
                depth,
                top,
                VEGETATION * LABEL_DIVISOR,
                light=light.on(UP),
            )
            return
        canvas.draw_texture(
            near + up,
            far - near,
            -up,
            textures.fence(rng, width, height),
            FENCE * LABEL_DIVISOR,
            light=light.on(outward),
            label_gaps=True,
        )


@dataclass(frozen=True)
class Pole:
    """Is a post that may carry a lamp arm, and signs that face the traffic.

    `signs` holds (height of the middle, size in metres, seed, faces_camera) each.
    """

    street: Street
    base: Points
    height: float
    width: float
    color: tuple[float, float, float]
    arm: float
    signs: Sequence[tuple[float, float, int]]

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        return around(self.base, abs(self.arm) + 0.8, self.height + 0.6)

    def shadow(self, light: Light) -> list[Points]:
        side = np.array([self.width / 2, 0, 0])
        foot = np.stack([self.base - side, self.base + side])
        return convex_shadow(light, np.concatenate([foot, foot + UP * self.height]))

    def draw(self, canvas: Canvas, light: Light) -> None:
        scale = canvas.camera.pixels_per_meter(self.base)
        away = float(np.linalg.norm(self.base - canvas.camera.position))
        if scale == 0 or away > _POLE_REACH:
            return
        right = facing(canvas, self.base)
        half = right * max(self.width, _MIN_POLE_PIXELS / scale) / 2
        tint = np.asarray(self.color) * light.diffuse
        top = self.base + UP * self.height
        label = POLE * LABEL_DIVISOR
        # A lit and a shaded half; a thin post shows their mean.
        halves: tuple[tuple[float, float, float], ...] = (
            (-0.5, 0.5, 1.15),
            (0.0, 0.5, 0.8),
        )
        if float(np.linalg.norm(half)) * 2 * scale < 4:
            halves = ((-0.5, 1.0, 0.98),)
        for shift, share, shade in halves:
            left = self.base + half * 2 * shift
            across, rise = half * 2 * share, top - self.base
            quad = np.stack([left, left + across, left + across + rise, left + rise])
            canvas.fill_polygon(quad, tint * shade, label)
        if self.arm:
            reach = np.array([self.arm, 0.35, 0.0])
            thick = UP * max(0.1, _MIN_POLE_PIXELS / scale)
            canvas.fill_polygon(
                np.stack([top - thick, top, top + reach, top + reach - thick]),
                tint,
                label,
            )
            lamp = np.array([np.sign(self.arm) * 0.7, 0.02, 0.0])
            glow = np.array([255.0, 232, 180]) if light.is_dusk else tint * 1.3
            end = top + reach
            canvas.fill_polygon(
                np.stack(
                    [end, end + lamp, end + lamp - thick * 1.6, end - thick * 1.6]
                ),
                glow,
                label,
            )
        for middle, size, seed in self.signs if away < _SIGN_REACH else ():
            face = textures.sign_face(textures.stream(seed))
            tall = size * min(face.shape[0] / face.shape[1], 1.9)
            across = facing(canvas, self.base) * 0.5 + np.array([0.5, 0.0, 0.0])
            across = across / np.linalg.norm(across) * size
            toward = np.array([across[2], 0, -across[0]]) / size * 0.12
            canvas.draw_texture(
                self.base + toward - across / 2 + UP * (middle + tall / 2),
                across,
                -UP * tall,
                face,
                SIGN * LABEL_DIVISOR,
                light=np.maximum(light.on(toward / 0.12), 0.45),
            )


@dataclass(frozen=True)
class Bin:
    """Is a litter bin, a box or a cabinet: a distractor without a label."""

    base: Points
    size: tuple[float, float]
    color: tuple[float, float, float]

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        return around(self.base, self.size[0] / 2, self.size[1])

    def shadow(self, light: Light) -> list[Points]:
        half = np.array([self.size[0] / 2, 0, 0])
        foot = np.stack([self.base - half, self.base + half])
        return convex_shadow(light, np.concatenate([foot, foot + UP * self.size[1]]))

    def draw(self, canvas: Canvas, light: Light) -> None:
        half = facing(canvas, self.base) * self.size[0] / 2
        up = UP * self.size[1]
        tint = np.asarray(self.color) * light.diffuse
        quad = np.stack(
            [
                self.base - half,
                self.base + half,
                self.base + half + up,
                self.base - half + up,
            ]
        )
        canvas.fill_polygon(quad, tint * 1.1, VOID, bottom_color=tint * 0.7)
        lid = quad.copy()
        lid[:2] += up * 0.82
        canvas.fill_polygon(lid, tint * 0.6, VOID)


Structure = Building | Tree | Barrier | Pole | Bin
