"""Sky, ground and the far end of the street, painted before any object."""

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
from deeplab2_edge.synth.world import BLOCK, World

_FAR = 400.0  # metres; ground beyond is painted as if it were there
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
    u = (x / z / lift * 14 + rng.uniform(0, 256)).astype(np.float32)
    v = (9 / lift + rng.uniform(0, 256)).astype(np.float32)
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


def paint_ground(
    canvas: Canvas, world: World, rng: Rng, shadows: list[Any], contacts: list[Any]
) -> None:
    """Paints road, pavements, kerbs and grass with markings, shadows and depth."""
    camera, street = canvas.camera, world.street
    first = _first_ground_row(canvas)
    if first >= camera.size[0]:
        return
    x, y, z = camera.pixel_rays(first, camera.size[0])
    down = np.maximum(-y, 1e-6)
    height = float(camera.position[1])
    depth = np.minimum(height / down, _FAR)
    is_ground = y < -1e-4

    def place(t: Map) -> tuple[Map, Map]:
        s = (t * z + camera.position[2]).astype(np.float32)
        across = t * x + camera.position[0] - street.center(s).astype(np.float32)
        return across.astype(np.float32), s

    l, s = place(depth)  # noqa: E741
    # The pavement lies higher: its plane is met first, and its edge is the kerb.
    raised_depth = np.minimum((height - KERB_HEIGHT) / down, _FAR)
    raised_l, raised_s = place(raised_depth)
    is_raised = (raised_l > street.right) | (raised_l < street.left)
    is_road = ~is_raised & (l <= street.right) & (l >= street.left)
    is_kerb = ~is_raised & ~is_road
    edge = np.where(l > 0, street.right, street.left).astype(np.float32)
    kerb_share = np.clip((edge - raised_l) / (l - raised_l + 1e-6), 0, 1)
    depth = np.where(is_raised, raised_depth, depth)
    depth = np.where(
        is_kerb, raised_depth + (height / down - raised_depth) * kerb_share, depth
    )
    l = np.where(is_raised, raised_l, l)  # noqa: E741
    s = np.where(is_raised, raised_s, s)
    pixel = depth / camera.focal  # metres a pixel covers across
    pixel_s = pixel * depth / height  # and along the view
    fine = _lookup(noise_tile(2), l * 40, s * 40) * np.clip(1 - pixel_s * 9, 0, 1)
    coarse = _lookup(noise_tile(1), l * 5, s * 5 * 0.6) * np.clip(
        1 - pixel_s * 0.9, 0, 1
    )
    color = _road(world, rng, l, s, pixel, pixel_s, fine, coarse)
    beyond = np.where(
        l > 0,
        l - street.right - street.pavement[1],
        street.left - street.pavement[0] - l,
    )
    is_grass = is_raised & ((beyond > 0) | _verge(rng, l, street.right, street.left))
    pavement = _pavement(rng, l, s, pixel, pixel_s, fine, coarse)
    color = np.where(is_raised[..., None], pavement, color)
    kerb = np.array([168.0, 166, 160], np.float32) * rng.uniform(0.75, 1.1)
    near_edge = is_kerb | (is_raised & (np.abs(l - edge) < 0.14))
    color = np.where(near_edge[..., None], kerb * (1 + 0.05 * coarse[..., None]), color)
    color = np.where(is_kerb[..., None], color * 0.72, color)
    green = textures.foliage_color(rng) * 1.15
    lawn = green * (1 + 0.16 * fine + 0.12 * coarse)[..., None]
    color = np.where(is_grass[..., None], lawn, color)
    light = world.light.on(np.array([0.0, 1.0, 0.0]))
    color = color * light.astype(np.float32)
    color = _shade(canvas, world, color, first, shadows, contacts, depth)
    region = canvas.image[first:]
    np.copyto(
        region, np.clip(color, 0, 255).astype(np.uint8), where=is_ground[..., None]
    )
    labels = np.full(depth.shape, PAVEMENT * LABEL_DIVISOR, np.int32)
    labels[is_road] = ROAD * LABEL_DIVISOR
    labels[is_grass] = VEGETATION * LABEL_DIVISOR
    np.copyto(canvas.panoptic[first:], labels, where=is_ground)
    np.copyto(canvas.inverse_depth[first:], 1 / depth, where=is_ground)


def _first_ground_row(canvas: Canvas) -> int:
    rows = canvas.camera.size[0]
    r = canvas.camera.rotation
    cx, cy = canvas.camera.center_xy
    f = canvas.camera.focal
    # The ray's y falls with the row; at the ends of a row roll makes the difference.
    reach = abs(r[0, 1]) * cx / f
    row = cy - f * (r[2, 1] + reach) / r[1, 1] if r[1, 1] else 0
    return int(np.clip(np.floor(row), 0, rows))


def _lookup(tile: Map, u: NDArray[Any], v: NDArray[Any]) -> Map:
    return np.asarray(
        cv2.remap(
            tile,
            np.mod(u, tile.shape[1]).astype(np.float32),
            np.mod(v, tile.shape[0]).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
    )


def _band(distance: NDArray[Any], half: float, pixel: NDArray[Any]) -> NDArray[Any]:
    """Returns how much of a pixel a stripe of half width `half` covers, 0..1."""
    covered = (half - np.abs(distance)) / np.maximum(pixel, 1e-4) + 0.5
    return np.asarray(np.clip(covered, 0, 1))


def _road(
    world: World,
    rng: Rng,
    l: Map,  # noqa: E741
    s: Map,
    pixel: Map,
    pixel_s: Map,
    fine: Map,
    coarse: Map,
) -> NDArray[np.float32]:
    street = world.street
    tone = rng.uniform(72, 138) + rng.normal(0, 3, 3)
    wear = np.cos((np.abs(l) % street.lane) / street.lane * 4 * np.pi)
    amount = 0.1 * rng.uniform(0.5, 1.3) * fine + 0.06 * coarse + 0.03 * wear
    if rng.random() < 0.4:
        cracks = np.abs(_lookup(noise_tile(8), l * 14, s * 14)) < 0.05
        amount = amount - 0.22 * cracks * np.clip(1 - pixel_s * 4, 0, 1)
    for _ in range(int(rng.integers(0, 4))):
        l0, s0 = rng.uniform(street.left, street.right), rng.uniform(3, 30)
        wide, tall = rng.uniform(0.5, 2), rng.uniform(1, 6)
        patch = (np.abs(l - l0) < wide) & (np.abs(s - s0) < tall)
        amount = amount + patch * rng.uniform(-0.22, 0.16)
    color = tone.astype(np.float32) * (1 + amount[..., None])
    paint = np.zeros_like(l)
    center = rng.integers(4)
    period = float(rng.uniform(5, 9))
    dash = _band(np.mod(s, period) - period / 2, period * 0.25, pixel_s)
    dash = np.where(pixel_s > period / 2, 0.5, dash)
    if center == 1:
        paint = _band(l, 0.07, pixel) * dash
    elif center == 2:
        paint = _band(l, 0.07, pixel)
    elif center == 3:
        paint = _band(np.abs(l) - 0.14, 0.06, pixel)
    if rng.random() < 0.4:
        for kerb, park in (
            (street.right, street.parking[1]),
            (street.left, street.parking[0]),
        ):
            place = kerb - np.sign(kerb) * (park if park else 0.35)
            paint = np.maximum(paint, _band(l - place, 0.06, pixel))
    if world.crossing is not None:
        inside = _band(s - world.crossing - 1.8, 1.8, pixel_s)
        stripes = _band(np.mod(l, 1.0) - 0.5, 0.25, pixel)
        road = (l > street.left + 0.3) & (l < street.right - 0.3)
        paint = np.where(inside > 0, inside * stripes * road, paint)
        paint = np.maximum(
            paint,
            _band(s - world.crossing + 1.6, 0.15, pixel_s)
            * (np.sign(l) == np.sign(world.camera_l)),
        )
    paint = np.clip(paint * (0.82 + 0.1 * coarse + 0.08 * fine), 0, 1)[..., None]
    yellow = rng.random() < 0.12
    ink = np.array([220, 178, 60.0] if yellow else [226, 226, 220.0], np.float32)
    return np.asarray(color * (1 - paint) + ink * paint, np.float32)


_SLABS = (
    (152, 148, 142),
    (172, 160, 146),
    (150, 112, 98),
    (124, 122, 122),
    (188, 180, 164),
    (104, 102, 104),
)


def _pavement(
    rng: Rng,
    l: Map,  # noqa: E741
    s: Map,
    pixel: Map,
    pixel_s: Map,
    fine: Map,
    coarse: Map,
) -> NDArray[np.float32]:
    tone = np.array(_SLABS[rng.integers(len(_SLABS))]) * rng.uniform(0.85, 1.1)
    size = float(rng.choice([0.4, 0.6, 1.0, 1.5]))
    amount = 0.07 * fine + 0.05 * coarse
    if rng.random() < 0.8:
        fade = np.clip(1 - pixel_s / size * 2.5, 0, 1)
        joints = np.maximum(
            _band(np.mod(l, size) - size / 2, 0.015, pixel),
            _band(np.mod(s, size) - size / 2, 0.015, pixel_s),
        )
        tint = np.sin(np.floor(l / size) * 12.9 + np.floor(s / size) * 78.2)
        amount = amount + (0.05 * tint - 0.3 * joints) * fade
    return np.asarray(tone.astype(np.float32) * (1 + amount[..., None]), np.float32)


def _verge(rng: Rng, l: Map, right: float, left: float) -> NDArray[np.bool_]:  # noqa: E741
    """Returns the grass strips between kerb and pavement, in some worlds."""
    width = rng.uniform(0.6, 1.1)
    if rng.random() > 0.25:
        return np.zeros(l.shape, np.bool_)
    outside = np.where(l > 0, l - right, left - l)
    return np.asarray((outside > 0.14) & (outside < width))


def _shade(
    canvas: Canvas,
    world: World,
    color: NDArray[Any],
    first: int,
    shadows: list[Any],
    contacts: list[Any],
    depth: Map,
) -> NDArray[Any]:
    light = world.light
    if shadows:
        mask = canvas.ground_mask(shadows)[first:]
        soft = cv2.blur(mask, (3, 3)).astype(np.float32) / 255
        ratio = light.ambient / (light.ambient + light.sun * light.to_sun[1])
        color = color * (1 - soft[..., None] * (1 - ratio).astype(np.float32))
    if contacts:
        mask = canvas.ground_mask(contacts)[first:]
        size = max(canvas.camera.size[0] // 60, 1) * 2 + 1
        soft = cv2.blur(mask, (size, size)).astype(np.float32) / 255
        color = color * (1 - 0.72 * soft[..., None])
    return color


__all__ = ["BLOCK", "paint_ground", "paint_sky", "paint_skyline"]
