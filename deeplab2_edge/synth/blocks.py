"""Draws what stands along the street: houses, gardens, posts and trees.

The street is cut into blocks of 16 m. A block is drawn from a stream of its own, so
a world has no end and any moment of it can be built without the moments before.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth.street import KERB_HEIGHT
from deeplab2_edge.synth.structures import Barrier, Bin, Building, Pole, Structure, Tree
from deeplab2_edge.synth.textures import Rng, stream
from deeplab2_edge.synth.world import STATIC_STREAM, World

BLOCK = 16.0  # metres of street
BLOCKS_BEHIND = 1
CLEARANCE = 3.0  # metres before the lens where nobody walks, and no post at twice
_BLOCKS_AHEAD = 8


@dataclass(frozen=True)
class Strip:
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


def standing_structures(world: World, time: float) -> list[Structure]:
    """Returns what stands around the camera at a time in seconds."""
    here = int(world.speed * time // BLOCK)
    found: list[Structure] = []
    for block in range(here - BLOCKS_BEHIND, here + _BLOCKS_AHEAD + 1):
        for side in (0, 1):
            found += _static_block(world, block, side)
    eye = world.street.point(world.camera_l, world.speed * time)
    return [thing for thing in found if not _blocks_view(thing, eye)]


def _blocks_view(thing: Structure, eye: NDArray[np.float64]) -> bool:
    if isinstance(thing, Building | Barrier):
        return False
    x, _, z = np.abs(thing.base - eye)
    return bool(x < 1.2 and z < 2 * CLEARANCE)


def _static_block(world: World, block: int, side: int) -> list[Structure]:
    """Draws the houses, gardens and furniture of one block on one side."""
    strip = Strip(
        world, block, side, stream(world.seed, STATIC_STREAM, block + 1000, side)
    )
    draw = (_houses, _front_garden, _green)[strip.rng.choice(3, p=world.weights[side])]
    return draw(strip) + _kerbside(strip)


def _houses(strip: Strip) -> list[Structure]:
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


def _front_garden(strip: Strip) -> list[Structure]:
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


def _green(strip: Strip) -> list[Structure]:
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


def _kerbside(strip: Strip) -> list[Structure]:
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
    strip: Strip, *, heights: tuple[float, float], hedge_share: float
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


def _tree(strip: Strip, l: float, s: float, height: float) -> Tree:  # noqa: E741
    return Tree(strip.world.street.point(strip.sign * l, s), strip.key(), height)


def _bin(strip: Strip, l: float) -> Bin:  # noqa: E741
    rng = strip.rng
    red, green, blue = (float(rng.integers(20, top)) for top in (190, 160, 160))
    s = strip.start + rng.uniform(12, 15)
    return Bin(
        strip.world.street.point(strip.sign * l, s, KERB_HEIGHT),
        (rng.uniform(0.4, 0.7), rng.uniform(0.8, 1.3)),
        (red, green, blue),
    )


def _furniture(strip: Strip, l: float, s: float) -> Pole:  # noqa: E741
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
