"""Textures: noise tiles, facades, fences, foliage, sign faces."""

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Rgb = tuple[int, int, int]

FACADE_PIXELS_PER_METER = 16
_TILE = 256


def stream(seed: int, *keys: int) -> Rng:
    """Returns the random stream of one part of a world.

    Parts have streams of their own, so that what one draws does not shift another.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *keys])))


@functools.cache
def noise_tile(kind: int, octaves: int = 5) -> NDArray[np.float32]:
    """Returns a periodic `[256, 256]` noise tile, mean 0, standard deviation 1.

    `kind` is the variant (another seed); each octave halves size and strength.
    """
    rng = np.random.Generator(np.random.Philox(key=[kind, 77]))
    total = np.zeros((_TILE, _TILE), np.float32)
    for octave in range(octaves):
        cells = 8 << octave
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        wrapped = np.pad(coarse, 2, mode="wrap")
        step = _TILE // cells
        size = wrapped.shape[0] * step
        smooth = cv2.resize(wrapped, (size, size), interpolation=cv2.INTER_CUBIC)
        total += smooth[2 * step : 2 * step + _TILE, 2 * step : 2 * step + _TILE] * (
            0.6**octave
        )
    total -= total.mean()
    result = np.asarray(total / total.std(), np.float32)
    result.setflags(write=False)
    return result


def noise_patch(rng: Rng, height: int, width: int, kind: int) -> NDArray[np.float32]:
    """Cuts `[height, width]` from a tile at a random place, wrapping around."""
    tile = _repeated_tile(kind)
    top, left = int(rng.integers(_TILE)), int(rng.integers(_TILE))
    if height <= 2 * _TILE and width <= 2 * _TILE:
        return tile[top : top + height, left : left + width]
    rows = (np.arange(height) + top) % _TILE
    columns = (np.arange(width) + left) % _TILE
    return np.asarray(tile[rows[:, None], columns[None, :]])


@functools.cache
def _repeated_tile(kind: int) -> NDArray[np.float32]:
    return np.asarray(np.tile(noise_tile(kind), (3, 3)))


def shaded(color: Sequence[float] | NDArray[Any], amount: NDArray[Any]) -> Any:
    """Returns uint8 `[..., 3]`: a color times `1 + amount`."""
    values = np.asarray(color, np.float32) * (1 + amount[..., None])
    np.maximum(values, 0, out=values)
    np.minimum(values, 255, out=values)
    return values.astype(np.uint8)


_WALLS: tuple[Rgb, ...] = (
    (158, 84, 66),
    (128, 70, 58),
    (196, 178, 148),
    (214, 206, 190),
    (170, 168, 164),
    (120, 120, 124),
    (222, 196, 150),
    (176, 146, 120),
    (150, 160, 172),
    (206, 160, 140),
    (96, 88, 84),
    (186, 196, 180),
)


def wall_color(rng: Rng) -> NDArray[np.float32]:
    """Draws a wall color, RGB 0..255."""
    base = np.array(_WALLS[rng.integers(len(_WALLS))], np.float32)
    return np.asarray(
        np.clip(base * rng.uniform(0.75, 1.15) + rng.normal(0, 6, 3), 20, 245)
    )


def wall(rng: Rng, height: int, width: int, color: NDArray[Any]) -> NDArray[np.uint8]:
    """Paints `[height, width, 3]` bare wall: plaster, brick or slabs, with stains."""
    amount = noise_patch(rng, height, width, 1) * 0.05
    amount += noise_patch(rng, height, width, 2) * rng.uniform(0.01, 0.05)
    pattern = rng.integers(3)
    if pattern == 1:
        amount[::4] -= 0.12
        amount[1::8, ::8] -= 0.1
        amount[5::8, 4::8] -= 0.1
    elif pattern == 2:
        step = int(rng.integers(14, 40))
        amount[::step] -= 0.15
        amount[:, :: step + 7] -= 0.1
    amount += np.linspace(0.04, -0.1, height, dtype=np.float32)[:, None]
    return np.asarray(shaded(color, amount))


def facade(
    rng: Rng, width_m: float, height_m: float, *, is_lit: bool, has_shop: bool
) -> NDArray[np.uint8]:
    """Paints the front of a building, 16 pixels to the metre."""
    scale = FACADE_PIXELS_PER_METER
    width, height = max(int(width_m * scale), 8), max(int(height_m * scale), 8)
    color = wall_color(rng)
    texture = wall(rng, height, width, color)
    trim = np.clip(color * rng.choice([0.6, 1.35]), 15, 250)
    floor_m = rng.uniform(2.8, 3.6)
    ground = int((rng.uniform(3.2, 4.0) if has_shop else floor_m) * scale)
    style = _WindowStyle(rng, is_lit)
    pitch = int(rng.uniform(1.8, 3.4) * scale)
    columns = max((width - scale // 2) // pitch, 1)
    margin = (width - columns * pitch) // 2
    bottom = height - ground
    floor = int(floor_m * scale)
    while bottom - floor > -scale // 2 and bottom > style.height + 8:
        top = bottom - (floor + style.height) // 2
        for column in range(columns):
            left = margin + column * pitch + (pitch - style.width) // 2
            style.paint(rng, texture, top, left)
        if style.has_ledge:
            texture[bottom : bottom + 3] = trim
        bottom -= floor
    texture[: max(scale // 3, 3)] = trim
    if has_shop:
        _paint_shop(rng, texture, ground, is_lit)
    else:
        door_column = int(rng.integers(columns))
        for column in range(columns):
            left = margin + column * pitch + (pitch - style.width) // 2
            if column == door_column:
                _paint_door(rng, texture, left)
            else:
                style.paint(rng, texture, height - (ground + style.height) // 2, left)
    return texture


class _WindowStyle:
    """Paints the windows of one building alike, with chance in glass and blinds."""

    def __init__(self, rng: Rng, is_lit: bool) -> None:
        scale = FACADE_PIXELS_PER_METER
        self.width = int(rng.uniform(0.9, 1.6) * scale)
        self.height = int(rng.uniform(1.2, 2.0) * scale)
        self.frame = tuple(
            int(c) for c in rng.choice([235, 60, 150]) + rng.integers(-10, 10, 3)
        )
        self.bars = int(rng.integers(1, 3))
        self.has_sill = rng.random() < 0.6
        self.has_ledge = rng.random() < 0.35
        self.has_shutters = rng.random() < 0.2
        self.shutter = tuple(int(c) for c in rng.integers(40, 160, 3))
        self.variants = [self._variant(rng, is_lit) for _ in range(4)]

    def paint(self, rng: Rng, texture: NDArray[np.uint8], top: int, left: int) -> None:
        """Paints one window; leaves the wall as it is where it does not fit."""
        height, width = self.height, self.width
        if top < 0 or left < 0:
            return
        region = texture[top : top + height, left : left + width]
        if region.shape[:2] != (height, width):
            return
        if self.has_shutters:
            first = max(left - width // 2, 0)
            texture[top : top + height, first : left + width + width // 2] = (
                self.shutter
            )
        region[:] = self.variants[int(rng.random() * len(self.variants))]
        if self.has_sill:
            texture[top + height : top + height + 2, left : left + width] = 190

    def _variant(self, rng: Rng, is_lit: bool) -> NDArray[np.uint8]:
        height, width = self.height, self.width
        window = np.empty((height, width, 3), np.uint8)
        window[:] = self.frame
        glass = np.array(
            rng.choice([35, 60, 90, 120]) + np.array([-8, 0, 10]), np.float32
        )
        if is_lit and rng.random() < 0.4:
            glass = np.array([240, 205, 130], np.float32) * rng.uniform(0.7, 1)
        shade = np.linspace(0.25, -0.2, height - 4, dtype=np.float32)[:, None]
        window[2:-2, 2:-2] = shaded(glass, np.repeat(shade, width - 4, axis=1))
        if rng.random() < 0.3:
            blind = int(rng.uniform(0.2, 0.8) * height)
            window[2 : max(blind, 3), 2:-2] = int(rng.integers(150, 235))
        for bar in range(1, self.bars + 1):
            window[:, bar * width // (self.bars + 1)] = self.frame
        window[height // 3] = self.frame
        return window


def _paint_shop(
    rng: Rng, texture: NDArray[np.uint8], ground: int, is_lit: bool
) -> None:
    height, width = texture.shape[:2]
    band = tuple(int(c) for c in rng.integers(20, 235, 3))
    top = height - ground
    cv2.rectangle(texture, (0, top), (width, top + 10), band, -1)
    ink = tuple(255 - c for c in band)
    x = int(rng.integers(6, 30))
    while x < width - 20 and x < 140:
        step = int(rng.integers(3, 8))
        cv2.rectangle(texture, (x, top + 3), (x + step - 2, top + 7), ink, -1)
        x += step
    pane = int(rng.uniform(1.4, 3.0) * FACADE_PIXELS_PER_METER)
    for left in range(4, width - pane // 2, pane):
        right = min(left + pane - 4, width - 4)
        low = height - int(rng.integers(1, 9))
        dark = rng.integers(25, 90, 3).astype(np.float32)
        if is_lit:
            dark = np.array([230, 200, 150], np.float32)
        region = texture[top + 13 : low, left:right]
        if region.size:
            noise = noise_patch(rng, region.shape[0], region.shape[1], 3) * 0.3
            region[:] = shaded(dark, noise)
    if rng.random() < 0.4:
        stripe = np.where(
            (np.arange(width) // 6 % 2 == 0)[:, None], band, (230, 230, 225)
        )
        texture[top + 8 : top + 20] = stripe.astype(np.uint8)


def _paint_door(rng: Rng, texture: NDArray[np.uint8], left: int) -> None:
    height = texture.shape[0]
    tall, wide = int(2.2 * FACADE_PIXELS_PER_METER), int(1.1 * FACADE_PIXELS_PER_METER)
    color = tuple(int(c) for c in rng.integers(25, 190, 3))
    cv2.rectangle(
        texture,
        (left - 2, height - tall - 2),
        (left + wide + 2, height),
        (210, 205, 200),
        -1,
    )
    cv2.rectangle(texture, (left, height - tall), (left + wide, height), color, -1)
    cv2.rectangle(
        texture,
        (left + 3, height - tall + 3),
        (left + wide - 3, height - tall + 10),
        (70, 80, 90),
        -1,
    )


def roof(rng: Rng, height: int, width: int) -> NDArray[np.uint8]:
    """Paints tiles in rows, `[height, width, 3]`."""
    colors = ((120, 62, 50), (86, 84, 88), (146, 92, 66), (70, 64, 62))
    amount = noise_patch(rng, height, width, 2) * 0.09
    amount[::5] -= 0.2
    return np.asarray(shaded(colors[rng.integers(len(colors))], amount))


def fence(rng: Rng, width: int, height: int) -> NDArray[np.uint8]:
    """Paints a fence with gaps, `[height, width, 4]`: planks, rails, mesh or a wall."""
    kind = rng.integers(4)
    texture = np.zeros((height, width, 4), np.uint8)
    columns = np.arange(width)
    if kind == 0:
        color = np.array(
            [(136, 100, 68), (200, 198, 190), (92, 76, 62), (110, 124, 100)]
        )[rng.integers(4)]
        plank = int(rng.integers(7, 13))
        amount = noise_patch(rng, height, width, 2) * 0.06
        amount += stream(int(rng.integers(1 << 30))).normal(
            0, 0.09, width // plank + 1
        )[columns // plank][None]
        texture[..., :3] = shaded(color * rng.uniform(0.75, 1.1), amount)
        texture[:, columns % plank == 0, :3] //= 2
        texture[..., 3] = 255
        return texture
    dark = rng.integers(20, 90) if rng.random() < 0.7 else rng.integers(150, 230)
    metal = (rng.integers(-12, 12, 3) + dark).clip(0, 255).astype(np.uint8)
    texture[..., :3] = metal
    if kind == 1:
        spacing = int(rng.integers(5, 9))
        texture[:, columns % spacing < spacing // 2, 3] = 255
        texture[2:6, :, 3] = 255
        texture[-8:-4, :, 3] = 255
    elif kind == 2:
        rows = np.arange(height)
        lattice = ((rows[:, None] + columns[None]) % 8 < 3) | (
            (rows[:, None] - columns[None]) % 8 < 3
        )
        texture[lattice, 3] = 255
        texture[:3, :, 3] = 255
        texture[:, columns % 64 < 4, 3] = 255
    else:
        base = height // 2
        texture[base:, :, :3] = wall(rng, height - base, width, wall_color(rng))
        texture[base:, :, 3] = 255
        texture[:, columns % 7 < 3, 3] = 255
        texture[:3, :, 3] = 255
    return texture


_GREENS: tuple[Rgb, ...] = (
    (70, 98, 42),
    (52, 84, 44),
    (98, 112, 50),
    (62, 76, 40),
    (124, 118, 58),
    (88, 104, 70),
    (142, 104, 52),
)


def foliage_color(rng: Rng) -> NDArray[np.float32]:
    """Draws a leaf color from spring green to autumn brown, RGB 0..255."""
    base = np.array(_GREENS[rng.integers(len(_GREENS))], np.float32)
    return np.asarray(base * rng.uniform(0.75, 1.2))


def foliage(
    rng: Rng, height: int, width: int, color: NDArray[Any]
) -> NDArray[np.uint8]:
    """Paints leaves, `[height, width, 3]`, darker below."""
    amount = noise_patch(rng, height, width, 4) * 0.2
    amount += noise_patch(rng, height, width, 5) * 0.13
    amount += np.linspace(0.2, -0.3, height, dtype=np.float32)[:, None]
    return np.asarray(shaded(color, amount))


def tree(rng: Rng, pixels: int) -> NDArray[np.uint8]:
    """Paints a tree, `[pixels, 0.75 pixels, 4]`: trunk, boughs and a ragged crown."""
    height, width = pixels, max(int(pixels * 0.75), 4)
    texture = np.zeros((height, width, 4), np.uint8)
    bark = np.array([86, 70, 54]) * rng.uniform(0.6, 1.3)
    trunk_top = rng.uniform(0.5, 0.7)
    center = width / 2
    thick = max(int(width * rng.uniform(0.03, 0.06)), 1)
    ink = (*(float(c) for c in bark), 255.0)
    bend = rng.normal(0, width * 0.02)
    root = (int(center), height)
    fork = (int(center + bend), int(height * trunk_top * 0.9))
    cv2.line(texture, root, fork, ink, max(thick, 1))
    for _ in range(3):
        tip = (
            int(center + rng.normal(0, width * 0.2)),
            int(height * rng.uniform(0.2, 0.4)),
        )
        cv2.line(texture, fork, tip, ink, max(thick // 2, 1))
    rows = ((np.arange(height) / height) - trunk_top * 0.52)[:, None] / (
        trunk_top * 0.5
    )
    columns = (((np.arange(width) + 0.5) / width) - 0.5)[None] / 0.46
    square = rng.uniform(1.6, 3.0)
    field = 1 - np.abs(rows) ** square - np.abs(columns) ** square
    coarse = noise_patch(rng, max(height // 3, 2), max(width // 3, 2), 6)
    field = field + 0.22 * cv2.resize(coarse, (width, height))
    field = field + 0.13 * noise_patch(rng, height, width, 5)
    inside = field > rng.uniform(0.12, 0.35)
    texture[inside, :3] = foliage(rng, height, width, foliage_color(rng))[inside]
    texture[inside, 3] = 255
    texture[0] = 0
    texture[:, 0] = texture[:, -1] = 0
    return texture


def sign_face(rng: Rng) -> NDArray[np.uint8]:
    """Paints a road sign or a traffic light, `[h, w, 4]`."""
    kind = rng.integers(6)
    if kind == 0:
        return _traffic_light(rng)
    size = 48
    face = np.zeros((size, size, 4), np.uint8)
    red, blue, white = (200, 30, 36, 255), (24, 72, 160, 255), (238, 238, 232, 255)
    black, yellow = (24, 24, 26, 255), (236, 190, 36, 255)
    middle = (size // 2, size // 2)
    if kind == 1:
        cv2.circle(face, middle, 22, red, -1)
        cv2.circle(face, middle, 16, white, -1)
        cv2.putText(face, str(rng.integers(2, 9) * 10), (11, 31), 0, 0.6, black, 2)
    elif kind == 2:
        points = np.array([[24, 2], [46, 44], [2, 44]], np.int32)
        cv2.fillPoly(face, [points], red)
        inner = ((points - [24, 30]) * 0.62 + [24, 31]).astype(np.int32)
        cv2.fillPoly(face, [inner], yellow if rng.random() < 0.4 else white)
        cv2.line(face, (24, 22), (24, 34), black, 3)
    elif kind == 3:
        color = blue if rng.random() < 0.6 else (30, 120, 70, 255)
        cv2.rectangle(face, (2, 2), (45, 45), color, -1)
        cv2.rectangle(face, (4, 4), (43, 43), white, 1)
        cv2.line(face, (24, 38), (24, 14), white, 5)
        cv2.line(face, (14, 22), (24, 11), white, 4)
        cv2.line(face, (34, 22), (24, 11), white, 4)
    elif kind == 4:
        cv2.circle(face, middle, 22, blue if rng.random() < 0.5 else red, -1)
        cv2.rectangle(face, (10, 20), (38, 28), white, -1)
    else:
        face = np.zeros((32, 64, 4), np.uint8)
        color = (yellow, white, blue)[rng.integers(3)]
        cv2.rectangle(face, (1, 1), (62, 30), color, -1)
        ink = white if color == blue else black
        for row in (8, 16, 24):
            cv2.line(face, (6, row), (int(rng.integers(26, 56)), row), ink, 2)
    return face


def _traffic_light(rng: Rng) -> NDArray[np.uint8]:
    face = np.zeros((60, 26, 4), np.uint8)
    face[1:-1, 1:-1] = (26, 28, 28, 255)
    lit = rng.integers(3)
    colors = ((250, 50, 40), (250, 190, 50), (50, 240, 140))
    for i, color in enumerate(colors):
        factor = 1.0 if i == lit else 0.22
        ink = (*(int(c * factor) for c in color), 255)
        cv2.circle(face, (13, 12 + 18 * i), 7, ink, -1)
    return face
