"""Samples the world of a seed: the street, its light, what stands and what moves.

The street is cut into blocks of 16 m. A block is drawn from a stream of its own, so
a world has no end and any moment of it can be built without the moments before.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth.camera import Camera, make_camera
from deeplab2_edge.synth.people import Person
from deeplab2_edge.synth.scene import CAR, CYCLIST, LABEL_DIVISOR, PEDESTRIAN
from deeplab2_edge.synth.street import KERB_HEIGHT, Light, Street
from deeplab2_edge.synth.structures import Barrier, Bin, Building, Pole, Structure, Tree
from deeplab2_edge.synth.textures import Rng, stream
from deeplab2_edge.synth.vehicles import CAR_SHAPES, Car, car_paint

BLOCK = 16.0  # metres of street
FRAME_SECONDS = 0.1
_BLOCKS_BEHIND, _BLOCKS_AHEAD = 1, 8
_CAR_REACH, _PERSON_REACH = 42.0, 28.0  # metres; beyond, they would be specks
_CLEARANCE = 3.0  # metres before the lens where nobody walks, and no post at twice
# Streams of a world, second key after the seed.
_GLOBAL, _STATIC, _TRAFFIC = 0, 1, 2


@dataclass(frozen=True)
class Mover:
    """Is a car, pedestrian or cyclist that moves along the street at a steady speed."""

    thing: Car | Person
    l: float  # noqa: E741
    s: float
    along: float
    across: float
    swing_rate: float
    height: float


@dataclass(frozen=True)
class World:
    """Holds what is fixed over time in the world of a seed.

    Attributes:
        crossing: s of a zebra crossing, or None; traffic waits in front of it.
        ground: Whether the ground behind the pavements (left, right) is grass.
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

    def structures(self, time: float) -> list[Structure]:
        """Returns what stands around the camera."""
        here = int(self.speed * time // BLOCK)
        found: list[Structure] = []
        for block in range(here - _BLOCKS_BEHIND, here + _BLOCKS_AHEAD + 1):
            for side in (0, 1):
                found += _static_block(self, block, side)
        eye = self.street.point(self.camera_l, self.speed * time)
        return [thing for thing in found if not _blocks_view(thing, eye)]

    def things(self, time: float) -> list[Car | Person]:
        """Returns the cars and people within reach of the camera.

        Instance ids count the movers of all blocks from the first, so they belong to
        the same thing at any time.
        """
        s = self.speed * time
        fastest = max(abs(v) for v in (*self.flow, 5.0))
        last = int((s + _CAR_REACH + fastest * time) // BLOCK) + 1
        counts = {CAR: 0, PEDESTRIAN: 0, CYCLIST: 0}
        found: list[Car | Person] = []
        for block in range(-_BLOCKS_BEHIND, last + 1):
            for kind, mover in _movers(self, block):
                counts[kind] += 1
                thing = _at(self.street, mover, time)
                ahead = float(thing.base[2]) - s
                reach = _CAR_REACH if kind == CAR else _PERSON_REACH
                first = -6.0 if kind == CAR else _CLEARANCE
                if first < ahead < reach:
                    label = kind * LABEL_DIVISOR + counts[kind]
                    found.append(replace(thing, label=label))
        return found


def _blocks_view(thing: Structure, eye: NDArray[np.float64]) -> bool:
    if isinstance(thing, Building | Barrier):
        return False
    x, _, z = np.abs(thing.base - eye)
    return bool(x < 1.2 and z < 2 * _CLEARANCE)


def make_world(seed: int) -> World:
    """Draws the world of a seed."""
    rng = stream(seed, _GLOBAL)
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


@dataclass(frozen=True)
class _Strip:
    """Is one side of one block, with the stream its content is drawn from.

    Whoever draws from the stream earlier or more often changes all that comes after,
    and with it the pictures of every seed.

    Attributes:
        side: 0 left, 1 right.
    """

    world: World
    block: int
    side: int
    rng: Rng

    @property
    def start(self) -> float:
        """Where the block begins, as s."""
        return self.block * BLOCK

    @property
    def end(self) -> float:
        """Where the block ends, as s."""
        return self.start + BLOCK

    @property
    def sign(self) -> int:
        """Sign of l on this side."""
        return 1 if self.side else -1

    @property
    def kerb(self) -> float:
        """Distance of the kerb from the middle of the street."""
        street = self.world.street
        return street.right if self.side else -street.left

    @property
    def line(self) -> float:
        """Distance of the back of the pavement from the middle of the street."""
        return self.kerb + self.world.street.pavement[self.side]

    @property
    def is_mine(self) -> bool:
        """Says that the camera is on this side."""
        return bool(self.sign == (1 if self.world.camera_l > 0 else -1))

    @property
    def traffic_speed(self) -> float:
        """Speed along s of the cars that drive on this side."""
        mine, theirs = self.world.flow
        return abs(mine) if self.is_mine else -abs(theirs)

    def key(self) -> tuple[int, ...]:
        """Draws the seed of a structure's own looks."""
        return (int(self.rng.integers(1 << 31)),)


def _static_block(world: World, block: int, side: int) -> list[Structure]:
    """Draws the houses, gardens and furniture of one block on one side."""
    strip = _Strip(world, block, side, stream(world.seed, _STATIC, block + 1000, side))
    draw = (_houses, _front_garden, _green)[strip.rng.choice(3, p=world.weights[side])]
    return draw(strip) + _kerbside(strip)


def _houses(strip: _Strip) -> list[Structure]:
    """Draws two houses at the pavement."""
    rng = strip.rng
    cut = strip.start + rng.uniform(6, 10)
    return [
        Building(
            strip.world.street,
            strip.key(),
            strip.sign * strip.line,
            s0,
            s1,
            rng.uniform(6, 16),
            rng.uniform(7, 11),
            rng.random() < 0.45,
            rng.random() < 0.35,
        )
        for s0, s1 in ((strip.start, cut), (cut, strip.end))
    ]


def _front_garden(strip: _Strip) -> list[Structure]:
    """Draws a house behind its garden, which a fence or a hedge closes."""
    rng = strip.rng
    setback = rng.uniform(3, 6)
    s0, s1 = strip.start + rng.uniform(0.5, 3), strip.end - rng.uniform(0.5, 3)
    house = Building(
        strip.world.street,
        strip.key(),
        strip.sign * (strip.line + setback),
        s0,
        s1,
        rng.uniform(4.5, 8),
        rng.uniform(7, 9),
        False,
        rng.random() < 0.8,
    )
    found: list[Structure] = [house]
    found.append(_barrier(strip, heights=(0.9, 1.6), hedge_share=0.35))
    if rng.random() < 0.6:
        l, s = strip.line + setback * 0.5, rng.uniform(s0, s1)  # noqa: E741
        found.append(_tree(strip, l, s, rng.uniform(3, 6)))
    return found


def _green(strip: _Strip) -> list[Structure]:
    """Draws trees, with a fence or a house behind them now and then."""
    rng = strip.rng
    found: list[Structure] = []
    if rng.random() < 0.65:
        found.append(_barrier(strip, heights=(1.0, 2.0), hedge_share=0.3))
    for i in range(int(rng.integers(2, 5))):
        l = strip.line + rng.uniform(1.5, 9)  # noqa: E741
        s = strip.start + (i + rng.random()) * 4
        found.append(_tree(strip, l, s, rng.uniform(3, 9)))
    if rng.random() < 0.5:
        found.append(
            Building(
                strip.world.street,
                strip.key(),
                strip.sign * (strip.line + 12),
                strip.start,
                strip.end,
                rng.uniform(6, 14),
                8,
                False,
                rng.random() < 0.5,
            )
        )
    return found


def _kerbside(strip: _Strip) -> list[Structure]:
    """Draws the posts, trees and bins that stand at the kerb."""
    rng, start = strip.rng, strip.start
    edge = strip.kerb + 0.45
    found: list[Structure] = []
    if rng.random() < 0.8:
        found.append(_furniture(strip, edge, start + rng.uniform(1, 4)))
    if rng.random() < 0.3:
        found.append(_furniture(strip, edge, start + rng.uniform(9, 11)))
    if rng.random() < 0.35:
        s = start + rng.uniform(6, 8)
        found.append(_tree(strip, edge + 0.2, s, rng.uniform(4, 8)))
    if rng.random() < 0.18:
        found.append(_bin(strip, edge))
    return found


def _barrier(
    strip: _Strip, *, heights: tuple[float, float], hedge_share: float
) -> Barrier:
    """Draws a fence or a hedge along the whole block, behind the pavement."""
    return Barrier(
        strip.world.street,
        strip.key(),
        strip.sign * strip.line,
        strip.start,
        strip.end,
        strip.rng.uniform(*heights),
        strip.rng.random() < hedge_share,
    )


def _tree(strip: _Strip, l: float, s: float, height: float) -> Tree:  # noqa: E741
    return Tree(strip.world.street.point(strip.sign * l, s), strip.key(), height)


def _bin(strip: _Strip, l: float) -> Bin:  # noqa: E741
    rng = strip.rng
    red, green, blue = (float(rng.integers(20, top)) for top in (190, 160, 160))
    s = strip.start + rng.uniform(12, 15)
    return Bin(
        strip.world.street.point(strip.sign * l, s, KERB_HEIGHT),
        (rng.uniform(0.4, 0.7), rng.uniform(0.8, 1.3)),
        (red, green, blue),
    )


def _furniture(strip: _Strip, l: float, s: float) -> Pole:  # noqa: E741
    """Draws a lamp post or a post with signs."""
    rng, street = strip.rng, strip.world.street
    grey = float(rng.choice([40, 80, 130, 170]))
    color = (grey, grey + float(rng.uniform(-8, 8)), grey + float(rng.uniform(-10, 12)))
    if rng.random() < 0.2:
        color = (110.0, 84.0, 62.0)
    signs = []
    is_lamp = rng.random() < 0.45
    if not is_lamp or rng.random() < 0.35:
        signs.append(
            (
                float(rng.uniform(2.3, 2.9)),
                float(rng.uniform(0.8, 1.2)),
                int(rng.integers(1 << 31)),
            )
        )
        if rng.random() < 0.3:
            signs.append((signs[0][0] - 0.95, 0.65, int(rng.integers(1 << 31))))
    return Pole(
        street,
        street.point(strip.sign * l, s),
        float(rng.uniform(5.5, 8.5)) if is_lamp else float(rng.uniform(3.0, 3.6)),
        float(rng.uniform(0.18, 0.32)) if is_lamp else float(rng.uniform(0.11, 0.17)),
        color,
        -strip.sign * float(rng.uniform(0.8, 1.8)) if is_lamp else 0.0,
        tuple(signs),
    )


def _movers(world: World, block: int) -> list[tuple[int, Mover]]:
    """Draws the traffic that starts in one block, at time 0, each with its class."""
    rng = stream(world.seed, _TRAFFIC, block + 1000)
    found: list[tuple[int, Mover]] = []
    for side in (0, 1):
        strip = _Strip(world, block, side, rng)
        found += _parked_car(strip)
        found += _driving_car(strip)
        found += _cyclist(strip)
        found += _pedestrians(strip)
    return found + _people_on_crossing(world, block, rng)


def _parked_car(strip: _Strip) -> list[tuple[int, Mover]]:
    park = strip.world.street.parking[strip.side]
    if not park or strip.rng.random() >= 0.5:
        return []
    l = strip.sign * (strip.kerb - park * 0.5 + 0.05)  # noqa: E741
    return [_car(strip, l, strip.start + strip.rng.uniform(5, 11), 0.0)]


def _driving_car(strip: _Strip) -> list[tuple[int, Mover]]:
    rng = strip.rng
    if not _has_room_to_drive(strip):
        return []
    if rng.random() >= (0.4 if strip.is_mine else 0.5):
        return []
    l = strip.sign * strip.world.street.lane * 0.5 + rng.normal(0, 0.15)  # noqa: E741
    return [_car(strip, l, strip.start + rng.uniform(6, 10), strip.traffic_speed)]


def _has_room_to_drive(strip: _Strip) -> bool:
    """Says that a car here stands neither in the camera nor on the crossing."""
    crossing = strip.world.crossing
    is_free = strip.block >= (1 if strip.is_mine else 0)
    if crossing is None or strip.traffic_speed or strip.start >= crossing + 4:
        return is_free
    return is_free and not strip.is_mine and strip.start + 5 > crossing + 4


def _cyclist(strip: _Strip) -> list[tuple[int, Mover]]:
    rng, speed = strip.rng, strip.traffic_speed
    if rng.random() >= 0.4 or strip.block < 0:
        return []
    nearer = rng.uniform(0, 9) if strip.block == 0 else 0.0
    # Who waits still faces the way of the traffic.
    pace = (
        float(np.sign(speed) * rng.uniform(3, 5))
        if speed
        else 1e-3 * (1 if strip.is_mine else -1)
    )
    edge = strip.kerb - strip.world.street.parking[strip.side] - 0.45
    s = strip.start + rng.uniform(14.5, 16.5) - nearer
    return [_person(rng, strip.sign * edge, s, pace, 0.0, rides=True)]


def _pedestrians(strip: _Strip) -> list[tuple[int, Mover]]:
    """Draws who stands or walks on the pavement, each in a quarter of the block."""
    rng = strip.rng
    order = rng.permutation(4)
    shares = [0.1, 0.5, 0.4] if strip.block else [0.0, 0.5, 0.5]
    found = []
    for slot in order[: rng.choice([0, 1, 2], p=shares)]:
        reach = strip.world.street.pavement[strip.side] - 0.4
        l = strip.sign * (strip.kerb + rng.uniform(1.0, reach))  # noqa: E741
        walks = rng.random() < 0.75
        along = float(rng.choice([-1, 1]) * rng.uniform(0.7, 1.6)) if walks else 0.0
        s = strip.start + (slot + 0.5) * 4 + rng.uniform(-1, 1)
        found.append(_person(rng, l, s, along, 0.0, rides=False))
    return found


def _people_on_crossing(world: World, block: int, rng: Rng) -> list[tuple[int, Mover]]:
    """Draws who crosses the road in front of traffic that waits."""
    crossing = world.crossing
    if crossing is None or world.flow[0] or block != int(crossing // BLOCK):
        return []
    found = []
    for _ in range(int(rng.integers(1, 3))):
        direction = float(rng.choice([-1, 1]))
        l = rng.uniform(world.street.left, world.street.right)  # noqa: E741
        s = crossing + rng.uniform(0.6, 3.0)
        across = direction * rng.uniform(0.8, 1.4)
        found.append(_person(rng, l, s, 0.0, across, rides=False))
    return found


def _car(strip: _Strip, l: float, s: float, speed: float) -> tuple[int, Mover]:  # noqa: E741
    """Draws a car that points the way traffic goes on its side."""
    rng = strip.rng
    shape = CAR_SHAPES[tuple(CAR_SHAPES)[rng.integers(len(CAR_SHAPES))]]
    factor = rng.uniform(0.95, 1.06)
    shape = replace(
        shape,
        length=shape.length * factor,
        height=shape.height * rng.uniform(0.96, 1.05),
    )
    thing = Car(
        np.zeros(3),
        np.array([0, 0, 1.0 if strip.is_mine else -1.0]),
        shape,
        car_paint(rng),
        0,
        strip.world.light.is_dusk,
    )
    return CAR, Mover(thing, l, s, speed, 0.0, 0.0, 0.0)


def _person(
    rng: Rng,
    l: float,  # noqa: E741
    s: float,
    along: float,
    across: float,
    *,
    rides: bool,
) -> tuple[int, Mover]:
    """Draws a pedestrian or a cyclist who looks where he goes."""
    moves = bool(along or across)
    heading = (
        np.array([across, 0.0, along])
        if moves
        else np.array([rng.choice([-1.0, 1.0]), 0.0, rng.normal()])
    )
    is_grown = rides or rng.random() < 0.87
    thing = Person(
        np.zeros(3),
        heading / np.linalg.norm(heading),
        rng.uniform(1.55, 1.92) if is_grown else rng.uniform(1.15, 1.4),
        rng.uniform(0, 2 * np.pi),
        0.5 if moves else 0.12,
        int(rng.integers(1 << 31)),
        0,
        rides,
    )
    ground = 0.0 if rides or across else KERB_HEIGHT
    mover = Mover(thing, l, s, along, across, 6.0 if moves else 0.0, ground)
    return CYCLIST if rides else PEDESTRIAN, mover


def _at(street: Street, mover: Mover, time: float) -> Car | Person:
    """Places a mover at a time, turned along the street."""
    s = mover.s + mover.along * time
    # Who crosses the road stops on the other side.
    l = mover.l + mover.across * time  # noqa: E741
    if mover.across:
        l = float(np.clip(l, street.left - 1.2, street.right + 1.2))  # noqa: E741
    base = street.point(l, s, mover.height)
    forward = street.forward(s)
    right = np.array([forward[2], 0.0, -forward[0]])
    heading = mover.thing.forward
    turned = heading[2] * forward + heading[0] * right
    if isinstance(mover.thing, Person):
        phase = mover.thing.phase + mover.swing_rate * time
        return replace(mover.thing, base=base, forward=turned, phase=phase)
    return replace(mover.thing, base=base, forward=turned)
