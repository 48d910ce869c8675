"""Sky, ground and the far end of the street, painted before any object."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth import textures
from deeplab2_edge.synth.canvas import Canvas
from deeplab2_edge.synth.scene import (
    BUILDING,
    LABEL_DIVISOR,
    PAVEMENT,
    ROAD,
    SKY,
    VEGETATION,
)
from deeplab2_edge.synth.street import KERB_HEIGHT
from deeplab2_edge.synth.textures import Rng, noise_tile
from deeplab2_edge.synth.world import World

_FAR = 400.0  # metres; ground beyond is painted as if it were there
_PATCH_PERIOD = 60.0  # metres after which mended places repeat
_SKYLINE = 150.0  # metres to the row of far houses and trees
Map = NDArray[np.floating[Any]]


def paint_sky(canvas: Canvas, world: World, rng: Rng) -> NDArray[np.float32]:
    """Paints the sky over the whole canvas; returns the color at the horizon, RGB."""
    light = world.light
    # The sky is smooth: every other pixel is computed, the rest lies between.
    x, y, z = canvas.camera.pixel_rays(0, canvas.camera.size[0], step=2)
    elevation = y / np.sqrt(x * x + z * z)
    if light.is_dusk:
        top, low = np.array([84, 98, 142.0]), np.array([242, 178, 128.0])
    elif light.has_shadows:
        top, low = np.array([86, 140, 212.0]), np.array([196, 216, 236.0])
    else:
        top, low = np.array([176, 184, 194.0]), np.array([222, 224, 226.0])
    top = top * rng.uniform(0.85, 1.1) + rng.normal(0, 5, 3)
    low = np.clip(low * rng.uniform(0.9, 1.05) + rng.normal(0, 4, 3), 0, 250)
    share = np.clip(elevation * 1.6, 0, 1)[..., None] ** 0.7
    sky = low + (top - low) * share.astype(np.float32)
    cover = float(rng.uniform(-0.6, 1.4))
    lift = np.maximum(elevation, 0.03) + 0.12
    u = x / z / lift * 14 + rng.uniform(0, 256)
    v = 9 / lift + rng.uniform(0, 256)
    clouds = _lookup(noise_tile(7), u, v)
    amount = np.clip((clouds + cover - 0.5) * 0.5, 0, 0.85)[..., None]
    white = np.clip(low * 0.3 + 250 * 0.7 - 20 * clouds[..., None], 0, 255)
    sky = sky * (1 - amount) + white * amount
    length = np.sqrt(x * x + y * y + z * z)
    sx, sy, sz = light.to_sun
    toward = (x * sx + y * sy + z * sz) / length
    glow = (np.clip(toward, 0, 1) ** 24 * (90 if light.sun[0] > 0.3 else 20))[..., None]
    sky = sky + glow * np.array([1, 0.9, 0.7])
    np.clip(sky, 0, 255, out=sky)
    rows, columns = canvas.camera.size
    full = cv2.resize(sky.astype(np.float32), None, fx=2, fy=2)
    canvas.image[:] = full[:rows, :columns].astype(np.uint8)
    canvas.panoptic[:] = SKY * LABEL_DIVISOR
    return np.asarray(low, np.float32)


def paint_skyline(canvas: Canvas, world: World, rng: Rng) -> None:
    """Paints far houses and trees across the end of the street."""
    s = float(canvas.camera.position[2]) + _SKYLINE
    middle = world.street.point(0.0, s)
    width, height = 512, 64
    columns = np.arange(width)
    for label, color, kind in (
        (BUILDING, textures.wall_color(rng) * 0.4 + 80, 0),
        (VEGETATION, textures.foliage_color(rng) * 0.6 + 40, 1),
    ):
        texture = np.zeros((height, width, 4), np.uint8)
        if kind == 0:
            steps = rng.uniform(0.15, 0.95, 40)
            tops = height * (1 - steps[columns * 40 // width])
        else:
            noise = textures.noise_patch(rng, 1, width, 2)[0]
            tops = height * (0.62 - 0.14 * noise)
        amount = textures.noise_patch(rng, height, width, 3) * 0.1
        if kind == 0:
            amount[::5] -= 0.15
            amount[:, ::4] -= 0.1
        texture[..., :3] = textures.shaded(color, amount)
        texture[np.arange(height)[:, None] >= tops[None], 3] = 255
        wide = np.array([420.0, 0, 0])
        canvas.draw_texture(
            middle - wide / 2 + np.array([0, 16.0, 0]),
            wide,
            np.array([0, -16.5, 0.0]),
            texture,
            label * LABEL_DIVISOR,
            light=world.light.diffuse,
        )


@dataclass(frozen=True)
class _Ground:
    """Holds where the ground is seen, maps `[rows, W]` from the first ground row on.

    Attributes:
        l, s: Place on the street, metres.
        depth: Metres along the optical axis.
        pixel, pixel_s: Metres that a pixel covers across and along the view.
        is_raised: Pavements and what lies behind them.
        is_kerb: The upright face of a kerb.
        edge: l of the kerb on this side.
        fine, coarse: Noise, fading where it would alias.
    """

    l: Map  # noqa: E741
    s: Map
    depth: Map
    pixel: Map
    pixel_s: Map
    is_raised: NDArray[np.bool_]
    is_kerb: NDArray[np.bool_]
    edge: Map
    fine: Map
    coarse: Map


def paint_ground(
    canvas: Canvas, world: World, rng: Rng, shadows: list[Any], contacts: list[Any]
) -> None:
    """Paints road, pavements, kerbs and grass with markings, shadows and depth."""
    camera = canvas.camera
    first = _first_ground_row(canvas)
    if first >= camera.size[0]:
        return
    ground = _survey(canvas, world, first)
    tones, amounts = [], []
    tone, amount, (ink, paint) = _road(world, rng, ground)
    tones.append(tone)
    amounts.append(amount)
    tone, amount = _pavement(rng, ground)
    tones.append(tone)
    amounts.append(amount)
    stone = np.array([168.0, 166, 160]) * rng.uniform(0.75, 1.1)
    green = textures.foliage_color(rng) * 0.6 + np.array([40.0, 52, 24])
    tones += [stone, stone * 0.72, green]
    amounts += [0.05 * ground.coarse] * 2
    amounts.append(0.16 * ground.fine + 0.12 * ground.coarse)
    is_grass = ground.is_raised & _is_grass(world, rng, ground)
    # Rows of `tones`: road, pavement, kerb from above, kerb face, grass.
    kind = np.zeros(ground.l.shape, np.intp)
    kind[ground.is_raised] = 1
    kind[ground.is_raised & (np.abs(ground.l - ground.edge) < 0.14)] = 2
    kind[ground.is_kerb] = 3
    kind[is_grass] = 4
    color = np.asarray(tones, np.float32)[kind]
    color *= (1 + np.choose(kind, amounts)).astype(np.float32)[..., None]
    painted = (paint > 0) & (kind == 0)
    share = paint[painted][:, None]
    color[painted] += share * (ink - color[painted])
    color *= _shade(canvas, world, first, shadows, contacts)
    np.minimum(np.maximum(color, 0, out=color), 255, out=color)
    labels = np.array([ROAD, PAVEMENT, PAVEMENT, PAVEMENT, VEGETATION], np.int32)
    is_ground = ground.depth < _FAR
    np.copyto(canvas.image[first:], color.astype(np.uint8), where=is_ground[..., None])
    np.copyto(canvas.panoptic[first:], labels[kind] * LABEL_DIVISOR, where=is_ground)
    np.copyto(canvas.inverse_depth[first:], 1 / ground.depth, where=is_ground)


def _survey(canvas: Canvas, world: World, first: int) -> _Ground:
    """Finds the place on the street that every pixel from row `first` on shows."""
    camera, street = canvas.camera, world.street
    x, y, z = camera.pixel_rays(first, camera.size[0])
    eye_x, height, eye_s = (float(c) for c in camera.position)
    down = np.maximum(-y, height / _FAR)

    def place(depth: Map) -> tuple[Map, Map]:
        s = depth * z + eye_s
        return depth * x + (eye_x - street.center(s)), s

    depth = height / down
    l, s = place(depth)  # noqa: E741
    # The pavement lies higher: its plane is met first, and its edge is the kerb.
    raised_depth = depth * ((height - KERB_HEIGHT) / height)
    raised_l, raised_s = place(raised_depth)
    is_raised = (raised_l > street.right) | (raised_l < street.left)
    is_kerb = ~is_raised & ((l > street.right) | (l < street.left))
    edge = np.where(l > 0, np.float32(street.right), np.float32(street.left))
    l_kerb, depth_kerb = raised_l[is_kerb], raised_depth[is_kerb]
    share = (edge[is_kerb] - l_kerb) / (l[is_kerb] - l_kerb + 1e-6)
    seen = np.where(is_raised, raised_depth, depth)
    seen[is_kerb] = depth_kerb + (depth[is_kerb] - depth_kerb) * np.clip(share, 0, 1)
    seen[depth >= _FAR * 0.999] = _FAR
    l = np.where(is_raised, raised_l, l)  # noqa: E741
    s = np.where(is_raised, raised_s, s)
    pixel = seen / camera.focal
    pixel_s = pixel * seen / height
    fine = _lookup(noise_tile(2), l * 40, s * 40) * _fade(pixel_s * 9)
    coarse = _lookup(noise_tile(1), l * 5, s * 3) * _fade(pixel_s * 0.9)
    return _Ground(l, s, seen, pixel, pixel_s, is_raised, is_kerb, edge, fine, coarse)


def _first_ground_row(canvas: Canvas) -> int:
    rows = canvas.camera.size[0]
    r = canvas.camera.rotation
    cx, cy = canvas.camera.center_xy
    f = canvas.camera.focal
    # The ray's y falls with the row; at the ends of a row roll makes the difference.
    reach = abs(r[0, 1]) * cx / f
    row = cy - f * (r[2, 1] + reach) / r[1, 1] if r[1, 1] else 0
    return int(np.clip(np.floor(row), 0, rows))


def _lookup(tile: Map, u: Map, v: Map) -> Map:
    """Reads a periodic tile at places given in its pixels."""
    wrapped = np.mod(u, tile.shape[1]), np.mod(v, tile.shape[0])
    return np.asarray(
        cv2.remap(tile, *wrapped, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    )


def _fade(amount: Map) -> Map:
    return np.asarray(np.maximum(1 - amount, 0))


def _band(distance: Map, half: float, pixel: Map) -> Map:
    """Returns how much of a pixel a stripe of half width `half` covers, 0..1."""
    covered = (half - np.abs(distance)) / pixel + 0.5
    return np.asarray(np.minimum(np.maximum(covered, 0), 1))


def _road(
    world: World, rng: Rng, ground: _Ground
) -> tuple[NDArray[Any], Map, tuple[NDArray[np.float32], Map]]:
    """Returns the tone and texture of the asphalt, and color and cover of its paint."""
    street, l, s = world.street, ground.l, ground.s  # noqa: E741
    pixel, pixel_s = ground.pixel, ground.pixel_s
    tone = rng.uniform(72, 138) + rng.normal(0, 3, 3)
    wear = np.cos(np.abs(l) * (4 * np.pi / street.lane))
    amount = 0.1 * rng.uniform(0.5, 1.3) * ground.fine
    amount += 0.06 * ground.coarse + 0.03 * wear
    if rng.random() < 0.4:
        cracks = np.abs(_lookup(noise_tile(8), l * 14, s * 14)) < 0.05
        amount[cracks] -= 0.22 * _fade(pixel_s[cracks] * 4)
    along = np.mod(s, _PATCH_PERIOD)
    for _ in range(int(rng.integers(0, 4))):
        l0, s0 = rng.uniform(street.left, street.right), rng.uniform(3, 30)
        wide, tall = rng.uniform(0.5, 2), rng.uniform(1, 6)
        patch = (np.abs(l - l0) < wide) & (np.abs(along - s0) < tall)
        amount[patch] += rng.uniform(-0.22, 0.16)
    paint = _center_line(rng, ground)
    if rng.random() < 0.4:
        for sign, kerb, park in (
            (1, street.right, street.parking[1]),
            (-1, street.left, street.parking[0]),
        ):
            place = kerb - sign * (park if park else 0.35)
            paint = np.maximum(paint, _band(l - place, 0.06, pixel))
    if world.crossing is not None:
        inside = _band(s - (world.crossing + 1.8), 1.8, pixel_s)
        stripes = _band(np.mod(l, 1.0) - 0.5, 0.25, pixel)
        road = (l > street.left + 0.3) & (l < street.right - 0.3)
        paint = np.where(inside > 0, inside * stripes * road, paint)
        stop_line = _band(s - (world.crossing - 1.6), 0.15, pixel_s)
        paint = np.maximum(paint, stop_line * ((l > 0) == (world.camera_l > 0)))
    paint = np.minimum(paint * (0.82 + 0.1 * ground.coarse + 0.08 * ground.fine), 1)
    yellow = rng.random() < 0.12
    ink = np.array([220, 178, 60.0] if yellow else [226, 226, 220.0], np.float32)
    return tone, amount, (ink, paint)


def _center_line(rng: Rng, ground: _Ground) -> Map:
    """Returns the cover of a dashed, a solid, a double or no center line."""
    kind = rng.integers(4)
    period = float(rng.uniform(5, 9))
    if kind == 0:
        return np.zeros_like(ground.l)
    if kind == 3:
        return _band(np.abs(ground.l) - 0.14, 0.06, ground.pixel)
    line = _band(ground.l, 0.07, ground.pixel)
    if kind == 1:
        place = np.mod(ground.s, period) - period / 2
        dash = _band(place, period * 0.25, ground.pixel_s)
        dash[ground.pixel_s > period / 2] = 0.5
        line = line * dash
    return line


_SLABS = (
    (152, 148, 142),
    (172, 160, 146),
    (150, 112, 98),
    (124, 122, 122),
    (188, 180, 164),
    (104, 102, 104),
)


def _pavement(rng: Rng, ground: _Ground) -> tuple[NDArray[Any], Map]:
    """Returns tone and texture of slabs, or of plain asphalt."""
    tone = np.array(_SLABS[rng.integers(len(_SLABS))]) * rng.uniform(0.85, 1.1)
    size = float(rng.choice([0.4, 0.6, 1.0, 1.5]))
    amount = 0.07 * ground.fine + 0.05 * ground.coarse
    if rng.random() < 0.8:
        l, s = ground.l / size, ground.s / size  # noqa: E741
        row, column = np.floor(s), np.floor(l)
        joints = np.maximum(
            _band((l - column - 0.5) * size, 0.015, ground.pixel),
            _band((s - row - 0.5) * size, 0.015, ground.pixel_s),
        )
        tint = np.sin(column * 12.9 + row * 78.2)
        amount += (0.05 * tint - 0.3 * joints) * _fade(ground.pixel_s * (2.5 / size))
    return tone, amount


def _is_grass(world: World, rng: Rng, ground: _Ground) -> NDArray[np.bool_]:
    """Returns what lies behind the pavements, and strips along some kerbs."""
    street, l = world.street, ground.l  # noqa: E741
    outside = np.abs(l - ground.edge)
    wide = np.where(
        l > 0, np.float32(street.pavement[1]), np.float32(street.pavement[0])
    )
    is_grass = outside > wide
    width = rng.uniform(0.6, 1.1)
    if rng.random() < 0.25:
        is_grass |= (outside > 0.14) & (outside < width)
    return np.asarray(is_grass)


def _shade(
    canvas: Canvas, world: World, first: int, shadows: list[Any], contacts: list[Any]
) -> NDArray[np.float32]:
    """Returns the light on the ground, `[rows, W, 3]`, less shadows."""
    light = world.light
    full = light.on(np.array([0.0, 1.0, 0.0])).astype(np.float32)
    mask = canvas.ground_mask(shadows)[first:]
    soft = cv2.blur(mask, (3, 3)).astype(np.float32) / 255
    shade = full - soft[..., None] * (full - light.ambient.astype(np.float32))
    if contacts:
        mask = canvas.ground_mask(contacts)[first:]
        size = max(canvas.camera.size[0] // 60, 1) * 2 + 1
        soft = cv2.blur(mask, (size, size)).astype(np.float32) / 255
        shade *= (1 - 0.72 * soft)[..., None]
    return np.asarray(shade, np.float32)
