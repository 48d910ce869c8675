"""Draws what moves on the street: cars, pedestrians and cyclists."""

from dataclasses import dataclass, replace

import numpy as np

from deeplab2_edge.synth.blocks import BLOCK, BLOCKS_BEHIND, CLEARANCE, Strip
from deeplab2_edge.synth.people import Person
from deeplab2_edge.synth.scene import CAR, CYCLIST, LABEL_DIVISOR, PEDESTRIAN
from deeplab2_edge.synth.street import KERB_HEIGHT, Street
from deeplab2_edge.synth.textures import Rng, stream
from deeplab2_edge.synth.vehicles import CAR_SHAPES, Car, car_paint
from deeplab2_edge.synth.world import TRAFFIC_STREAM, World

_CAR_REACH, _PERSON_REACH = 42.0, 28.0  # metres; beyond, they would be specks


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


def moving_things(world: World, time: float) -> list[Car | Person]:
    """Returns the cars and people within reach of the camera at a time in seconds.

    Instance ids count the movers of all blocks from the first, so they belong to
    the same thing at any time.
    """
    s = world.speed * time
    fastest = max(abs(v) for v in (*world.flow, 5.0))
    last = int((s + _CAR_REACH + fastest * time) // BLOCK) + 1
    counts = {CAR: 0, PEDESTRIAN: 0, CYCLIST: 0}
    found: list[Car | Person] = []
    for block in range(-BLOCKS_BEHIND, last + 1):
        for kind, mover in _movers(world, block):
            counts[kind] += 1
            thing = _at(world.street, mover, time)
            ahead = float(thing.base[2]) - s
            reach = _CAR_REACH if kind == CAR else _PERSON_REACH
            first = -6.0 if kind == CAR else CLEARANCE
            if first < ahead < reach:
                label = kind * LABEL_DIVISOR + counts[kind]
                found.append(replace(thing, label=label))
    return found


def _movers(world: World, block: int) -> list[tuple[int, Mover]]:
    """Draws the traffic that starts in one block, at time 0, each with its class."""
    rng = stream(world.seed, TRAFFIC_STREAM, block + 1000)
    found: list[tuple[int, Mover]] = []
    for side in (0, 1):
        strip = Strip(world, block, side, rng)
        found += _parked_car(strip)
        found += _driving_car(strip)
        found += _cyclist(strip)
        found += _pedestrians(strip)
    return found + _people_on_crossing(world, block, rng)


def _parked_car(strip: Strip) -> list[tuple[int, Mover]]:
    park = strip.world.street.parking[strip.side]
    if not park or strip.rng.random() >= 0.5:
        return []
    l = strip.sign * (strip.kerb - park * 0.5 + 0.05)  # noqa: E741
    return [_car(strip, l, strip.start + strip.rng.uniform(5, 11), 0.0)]


def _driving_car(strip: Strip) -> list[tuple[int, Mover]]:
    rng = strip.rng
    if not _has_room_to_drive(strip):
        return []
    if rng.random() >= (0.4 if strip.is_mine else 0.5):
        return []
    l = strip.sign * strip.world.street.lane * 0.5 + rng.normal(0, 0.15)  # noqa: E741
    return [_car(strip, l, strip.start + rng.uniform(6, 10), strip.traffic_speed)]


def _has_room_to_drive(strip: Strip) -> bool:
    """Says that a car here stands neither in the camera nor on the crossing."""
    crossing = strip.world.crossing
    is_free = strip.block >= (1 if strip.is_mine else 0)
    if crossing is None or strip.traffic_speed or strip.start >= crossing + 4:
        return is_free
    return is_free and not strip.is_mine and strip.start + 5 > crossing + 4


def _cyclist(strip: Strip) -> list[tuple[int, Mover]]:
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


def _pedestrians(strip: Strip) -> list[tuple[int, Mover]]:
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


def _car(strip: Strip, l: float, s: float, speed: float) -> tuple[int, Mover]:  # noqa: E741
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
