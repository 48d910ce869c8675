"""Renders scenes and videos from seeds."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.synth.blocks import standing_structures
from deeplab2_edge.synth.camera import Camera
from deeplab2_edge.synth.canvas import Canvas
from deeplab2_edge.synth.ground import paint_ground, paint_sky, paint_skyline
from deeplab2_edge.synth.lens import photograph
from deeplab2_edge.synth.people import Person
from deeplab2_edge.synth.scene import CAR, LABEL_DIVISOR, VOID, Scene
from deeplab2_edge.synth.structures import Barrier, Structure
from deeplab2_edge.synth.textures import stream
from deeplab2_edge.synth.traffic import moving_things
from deeplab2_edge.synth.vehicles import Car
from deeplab2_edge.synth.world import FRAME_SECONDS, World, make_world

DEFAULT_SIZE = (257, 513)
# Visible pixels at the default size; fewer become void. Below some 10 x 10 pixels
# a person would not name the thing either.
MIN_INSTANCE_PIXELS = 100
MAX_FRAMES = 300
_MIN_SIDE, _MAX_PIXELS = 16, 32_000_000
# Streams of a world, after those of world.py.
_SKY, _SKYLINE, _GROUND, _LENS, _NOISE = 10, 11, 12, 13, 14


def render_scene(seed: int, *, size: tuple[int, int] = DEFAULT_SIZE) -> Scene:
    """Renders one street scene; the same seed and size give the same bytes.

    Args:
        seed: 0 or more. Training seeds start at 0, validation seeds at 1 000 000.
        size: `(height, width)`, each side at least 16 pixels.

    Raises:
        UsageError: If the seed is negative or the size is too small or too large.

    Example:
        >>> scene = render_scene(0, size=(65, 129))
        >>> scene.image.shape
        (65, 129, 3)
    """
    _check(seed, size)
    return _render(make_world(seed), 0, size)


def render_video(
    seed: int, *, num_frames: int, size: tuple[int, int] = DEFAULT_SIZE
) -> Iterator[Scene]:
    """Renders frames at 10 per second from a moving camera among moving things.

    Instance ids belong to the same car or person in all frames. Frame 0 equals
    `render_scene(seed)`.

    Args:
        seed: As in `render_scene`.
        num_frames: 1 to 300.
        size: `(height, width)`.

    Raises:
        UsageError: As `render_scene`, or if `num_frames` is out of range.
    """
    _check(seed, size)
    if not 1 <= num_frames <= MAX_FRAMES:
        raise UsageError(f"num_frames is {num_frames}; must be 1 to {MAX_FRAMES}")
    world = make_world(seed)
    return (_render(world, frame, size) for frame in range(num_frames))


def _check(seed: int, size: tuple[int, int]) -> None:
    if seed < 0:
        raise UsageError(f"seed is {seed}; must be 0 or more")
    if min(size) < _MIN_SIDE or math.prod(size) > _MAX_PIXELS:
        raise UsageError(
            f"size is {size}; each side must be at least {_MIN_SIDE} and "
            f"height * width at most {_MAX_PIXELS}"
        )


def _render(world: World, frame: int, size: tuple[int, int]) -> Scene:
    time = frame * FRAME_SECONDS
    camera = world.camera(time, size)
    canvas = Canvas(camera)
    seed, light = world.seed, world.light
    objects = [*standing_structures(world, time), *moving_things(world, time)]
    horizon = paint_sky(canvas, world, stream(seed, _SKY))
    shadows = [polygon for thing in objects for polygon in thing.shadow(light)]
    contacts = [thing.contact() for thing in objects if isinstance(thing, Car)]
    paint_ground(canvas, world, stream(seed, _GROUND), shadows, contacts)
    paint_skyline(canvas, world, stream(seed, _SKYLINE))
    # Near to far, so that what is hidden is never painted; fences last and far to
    # near, since what shines through their gaps must be there already.
    near_to_far = sorted(objects, key=lambda o: _distance(o, camera))
    fences = [o for o in near_to_far if isinstance(o, Barrier) and not o.is_hedge]
    solid = [o for o in near_to_far if not isinstance(o, Barrier) or o.is_hedge]
    for thing in (*solid, *reversed(fences)):
        if canvas.may_show(thing.bounds()):
            thing.draw(canvas, light)
    image = photograph(
        canvas.image,
        canvas.inverse_depth,
        horizon,
        stream(seed, _LENS),
        stream(seed, _NOISE, frame),
    )
    _drop_specks(canvas.panoptic)
    inverse = canvas.inverse_depth
    depth = np.zeros(size, np.float32)
    np.divide(1, inverse, out=depth, where=inverse > 0)
    return Scene(image, canvas.panoptic, depth, camera.intrinsics)


def _distance(thing: Structure | Car | Person, camera: Camera) -> float:
    return float(np.linalg.norm(thing.base - camera.position))


def _drop_specks(panoptic: NDArray[np.int32]) -> None:
    """Makes things void, in place, of which too little is seen to be told."""
    height, width = panoptic.shape
    least = MIN_INSTANCE_PIXELS * height * width / math.prod(DEFAULT_SIZE)
    counts = np.bincount(panoptic.ravel())
    labels = np.flatnonzero((counts > 0) & (counts < least))
    specks = labels[(labels >= CAR * LABEL_DIVISOR) & (labels < VOID)]
    if len(specks):
        panoptic[np.isin(panoptic, specks)] = VOID
