"""Pedestrians and cyclists: jointed bodies of capsules, drawn flat to the camera.

A body is a list of parts with joints in body axes (forward, right, up), metres. The
parts are projected along the view direction, so a person may be seen from any side,
and painted from far to near into a small picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth import textures
from deeplab2_edge.synth.canvas import Canvas
from deeplab2_edge.synth.street import Light
from deeplab2_edge.synth.structures import UP, around, convex_shadow, facing

Points = NDArray[np.float64]
Joint = tuple[float, float, float]
_SKINS = (
    (236, 196, 168),
    (198, 150, 116),
    (144, 98, 70),
    (92, 60, 44),
    (222, 172, 140),
)
_HAIRS = ((30, 24, 22), (84, 58, 38), (170, 130, 80), (120, 120, 118), (60, 40, 30))
_CLOTHES = (
    (32, 36, 48),
    (56, 70, 110),
    (150, 36, 40),
    (220, 216, 208),
    (120, 120, 118),
    (60, 84, 60),
    (196, 160, 60),
    (84, 60, 44),
    (180, 110, 130),
    (20, 20, 22),
    (70, 130, 150),
    (200, 100, 40),
    (110, 80, 140),
)
_MARGIN = 0.12  # metres of picture around a body


@dataclass(frozen=True)
class _Part:
    """Is a capsule from a to b, or a closed polygon through `ring`."""

    a: Joint
    b: Joint
    radius: float
    color: Points
    ring: Points | None = None
    is_outline: bool = False


@dataclass(frozen=True)
class Person:
    """Is a pedestrian, or a cyclist if `on_bicycle`.

    Attributes:
        base: World point between the feet, or between the wheels.
        forward: Heading, `[3]`, horizontal.
        height: Of the person standing, metres.
        phase: Of the step or the pedals, radians.
        stride: Swing of the legs, radians; 0 stands.
        seed: Fixes clothes, hair and bags.
        label: Panoptic value.
    """

    base: Points
    forward: Points
    height: float
    phase: float
    stride: float
    seed: int
    label: int
    on_bicycle: bool

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        return around(self.base, 1.1 if self.on_bicycle else 0.7, self.height + 0.5)

    def shadow(self, light: Light) -> list[Points]:
        half = self.forward * (0.8 if self.on_bicycle else 0.2)
        foot = np.stack([self.base - half, self.base + half])
        return convex_shadow(
            light,
            np.concatenate([foot, foot * 0.5 + self.base * 0.5 + UP * self.height]),
        )

    def draw(self, canvas: Canvas, light: Light) -> None:
        scale = canvas.camera.pixels_per_meter(self.base)
        if scale == 0:
            return
        right = facing(canvas, self.base)
        body_right = np.array([self.forward[2], 0.0, -self.forward[0]])
        # How body axes look from the camera: across the picture and away from it.
        across = np.array([self.forward @ right, body_right @ right])
        away = np.array([-right[2], 0, right[0]])
        back = np.array([self.forward @ away, body_right @ away])
        rng = textures.stream(self.seed)
        parts = self._bicycle(rng) if self.on_bicycle else self._walker(rng)
        top = self.height + (0.25 if self.on_bicycle else 0.05) + _MARGIN
        reach = 1.1 if self.on_bicycle else 0.7
        sprite = _paint(
            parts, across, back, reach, top, float(np.clip(scale * 2, 30, 260))
        )
        sprite[..., :3] = _grain(rng, sprite)
        canvas.draw_texture(
            self.base - right * reach + UP * top,
            right * 2 * reach,
            -UP * (top + _MARGIN * 0.5),
            sprite,
            self.label,
            light=light.diffuse * 1.05,
        )

    def _walker(self, rng: np.random.Generator) -> list[_Part]:
        unit = self.height / 1.75
        look = _Look(rng)
        swing = self.stride * float(np.sin(self.phase))
        hip, shoulder, head = 0.92 * unit, 1.42 * unit, 1.62 * unit
        girth = rng.uniform(0.85, 1.2) * unit
        parts: list[_Part] = []
        for side, angle in ((-1, swing), (1, -swing)):
            y = 0.09 * side * unit
            knee_bend = max(-angle, 0.0) * 0.9
            knee = (0.45 * unit * np.sin(angle), y, hip - 0.45 * unit * np.cos(angle))
            low = angle - knee_bend
            foot = (
                knee[0] + 0.44 * unit * np.sin(low),
                y,
                knee[2] - 0.44 * unit * np.cos(low),
            )
            parts.append(_Part((0, y, hip), knee, 0.085 * girth, look.legs))
            shin = look.skin if look.bare_legs else look.legs
            parts.append(_Part(knee, foot, 0.06 * girth, shin))
            toe = (foot[0] + 0.13 * unit, y, max(foot[2], 0.03))
            parts.append(
                _Part((foot[0], y, max(foot[2], 0.03)), toe, 0.045 * unit, look.shoes)
            )
        if look.skirt:
            for y in (-0.1, 0.0, 0.1):
                parts.append(
                    _Part(
                        (0, y * unit, hip),
                        (0, y * 1.5 * unit, hip - 0.38 * unit),
                        0.11 * girth,
                        look.top,
                    )
                )
        parts += _torso(look, hip, shoulder, girth, unit, lean=0.02)
        for side, angle in ((-1, -swing * 0.9), (1, swing * 0.9)):
            y = 0.2 * side * girth
            joint = (0.0, y, shoulder - 0.04 * unit)
            elbow = (
                0.27 * unit * np.sin(angle),
                y * 1.18,
                joint[2] - 0.27 * unit * np.cos(angle),
            )
            bend = angle + 0.35 + look.arm_bend
            hand = (
                elbow[0] + 0.25 * unit * np.sin(bend),
                y * 1.15,
                elbow[2] - 0.25 * unit * np.cos(bend),
            )
            parts.append(_Part(joint, elbow, 0.055 * girth, look.top))
            parts.append(
                _Part(
                    elbow,
                    hand,
                    0.043 * girth,
                    look.skin if look.short_sleeves else look.top,
                )
            )
            parts.append(_Part(hand, hand, 0.045 * unit, look.skin))
            if side == look.bag_side:
                bag = (hand[0], hand[1], hand[2] - 0.18 * unit)
                parts.append(
                    _Part(bag, (bag[0] + 0.1, bag[1], bag[2]), 0.12 * unit, look.bag)
                )
        return parts + _head(look, 0.03, head, unit)

    def _bicycle(self, rng: np.random.Generator) -> list[_Part]:
        unit = self.height / 1.75
        look = _Look(rng)
        frame = np.array(_CLOTHES[rng.integers(len(_CLOTHES))], float) * rng.uniform(
            0.7, 1.2
        )
        tyre = np.array([22.0, 22, 24])
        radius, reach = 0.35, 0.53
        parts: list[_Part] = []
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        for x in (-reach, reach):
            ring = np.stack(
                [
                    x + radius * np.cos(angles),
                    0 * angles,
                    radius + radius * np.sin(angles),
                ],
                1,
            )
            parts.append(_Part((x, 0, radius), (x, 0, radius), 0.03, tyre, ring, True))
        crank, seat, bar = (-0.05, 0.0, 0.3), (-0.2, 0.0, 0.92), (0.4, 0.0, 1.0)
        for a, b in (
            ((-reach, 0.0, radius), crank),
            (crank, seat),
            (crank, (0.36, 0.0, 0.8)),
            (seat, (0.36, 0.0, 0.85)),
            ((reach, 0.0, radius), bar),
            ((-reach, 0.0, radius), seat),
        ):
            parts.append(_Part(a, b, 0.025, frame))
        parts.append(
            _Part((bar[0], -0.26, bar[2]), (bar[0], 0.26, bar[2]), 0.022, tyre)
        )
        parts.append(_Part((-0.3, 0, 0.95), (-0.1, 0, 0.95), 0.05, tyre))
        hip, shoulder = (-0.2, 1.0 * unit), (0.12, 1.45 * unit)
        for side, turn in ((-1, self.phase), (1, self.phase + np.pi)):
            y = 0.1 * side
            pedal = (
                crank[0] + 0.17 * float(np.cos(turn)),
                y,
                crank[2] + 0.17 * float(np.sin(turn)),
            )
            knee = ((hip[0] + pedal[0]) / 2 + 0.27, y, (hip[1] + pedal[2]) / 2 + 0.1)
            parts.append(_Part((hip[0], y, hip[1]), knee, 0.085 * unit, look.legs))
            parts.append(
                _Part(
                    knee, pedal, 0.06 * unit, look.skin if look.bare_legs else look.legs
                )
            )
            parts.append(
                _Part(pedal, (pedal[0] + 0.14, y, pedal[2] - 0.02), 0.045, look.shoes)
            )
        rise = shoulder[1] - hip[1]
        torso = _torso(
            look, hip[1], shoulder[1], unit, unit, lean=(shoulder[0] - hip[0]) / rise
        )
        parts += [_shifted(part, hip[0]) for part in torso]
        for side in (-1, 1):
            y = 0.2 * side * unit
            joint = (shoulder[0], y, shoulder[1] - 0.05)
            elbow = (0.24, y * 1.3, 1.15 * unit)
            hand = (bar[0], 0.24 * side, bar[2] + 0.02)
            parts.append(_Part(joint, elbow, 0.055 * unit, look.top))
            parts.append(
                _Part(
                    elbow,
                    hand,
                    0.045 * unit,
                    look.skin if look.short_sleeves else look.top,
                )
            )
        parts += _head(look, shoulder[0] + 0.1, shoulder[1] + 0.2 * unit, unit)
        if rng.random() < 0.6:
            helmet = np.array(_CLOTHES[rng.integers(len(_CLOTHES))], float)
            middle = (shoulder[0] + 0.09, 0.0, shoulder[1] + 0.27 * unit)
            parts.append(
                _Part(
                    middle,
                    (middle[0] + 0.05, 0, middle[2] - 0.01),
                    0.115 * unit,
                    helmet,
                )
            )
        return parts


class _Look:
    """Draws what somebody wears."""

    def __init__(self, rng: np.random.Generator) -> None:
        def cloth() -> Points:
            base = np.array(_CLOTHES[rng.integers(len(_CLOTHES))], float)
            return np.clip(base * rng.uniform(0.7, 1.2) + rng.normal(0, 8, 3), 8, 245)

        self.skin = np.array(_SKINS[rng.integers(len(_SKINS))], float) * rng.uniform(
            0.85, 1.05
        )
        self.hair = np.array(_HAIRS[rng.integers(len(_HAIRS))], float)
        self.top, self.legs, self.bag = cloth(), cloth(), cloth()
        self.shoes = cloth() * 0.5
        self.skirt = rng.random() < 0.25
        self.bare_legs = rng.random() < 0.25
        self.short_sleeves = rng.random() < 0.4
        self.long_hair = rng.random() < 0.4
        self.hat = rng.random() < 0.2
        self.backpack = rng.random() < 0.3
        self.stripes = rng.random() < 0.25
        self.bag_side = int(rng.choice([-1, 1, 0, 0]))
        self.arm_bend = float(rng.choice([0.0, 0.0, 0.3, 1.2]))


def _shifted(part: _Part, x: float) -> _Part:
    return _Part(
        (part.a[0] + x, *part.a[1:]),
        (part.b[0] + x, *part.b[1:]),
        part.radius,
        part.color,
    )


def _torso(
    look: _Look, hip: float, shoulder: float, girth: float, unit: float, *, lean: float
) -> list[_Part]:
    parts = []
    if look.backpack:
        middle = (hip + shoulder) / 2
        x = lean * (middle - hip) - 0.17 * unit
        parts.append(
            _Part((x, 0, middle - 0.1), (x, 0, middle + 0.15), 0.15 * unit, look.bag)
        )
    for share in np.linspace(0, 1, 6):
        up = hip - 0.02 + (shoulder - hip) * share
        half = (0.1 + 0.07 * share) * girth
        x = lean * (shoulder - hip) * share
        color = look.top * (0.6 if look.stripes and int(share * 5) % 2 else 1.0)
        parts.append(_Part((x, -half, up), (x, half, up), 0.105 * girth, color))
    return parts


def _head(look: _Look, x: float, middle: float, unit: float) -> list[_Part]:
    parts = [
        _Part(
            (x, 0, middle - 0.2 * unit), (x, 0, middle - 0.05), 0.05 * unit, look.skin
        ),
        _Part(
            (x + 0.02, 0, middle - 0.03),
            (x + 0.02, 0, middle + 0.02),
            0.095 * unit,
            look.skin,
        ),
        _Part(
            (x - 0.035, 0, middle + 0.02),
            (x - 0.02, 0, middle + 0.05),
            0.1 * unit,
            look.hair,
        ),
    ]
    if look.long_hair:
        parts.append(
            _Part(
                (x - 0.06, 0, middle - 0.18 * unit),
                (x - 0.04, 0, middle),
                0.08 * unit,
                look.hair,
            )
        )
    if look.hat:
        parts.append(
            _Part(
                (x - 0.06, 0, middle + 0.07),
                (x + 0.1, 0, middle + 0.07),
                0.06 * unit,
                look.bag,
            )
        )
    return parts


def _paint(
    parts: list[_Part],
    across: Points,
    back: Points,
    reach: float,
    top: float,
    scale: float,
) -> NDArray[np.uint8]:
    """Paints parts from far to near, `[h, w, 4]`, `scale` pixels to the metre."""
    height = int((top + _MARGIN * 0.5) * scale)
    sprite = np.zeros((height, int(2 * reach * scale), 4), np.uint8)

    def pixel(joint: Joint) -> tuple[int, int]:
        x = reach + joint[0] * across[0] + joint[1] * across[1]
        return int(round(x * scale)), int(round((top - joint[2]) * scale))

    def distance(part: _Part) -> float:
        forward = (part.a[0] + part.b[0]) / 2
        right = (part.a[1] + part.b[1]) / 2
        return float(forward * back[0] + right * back[1])

    for part in sorted(parts, key=distance, reverse=True):
        # Nearer parts are a little brighter: edges inside one color stay visible.
        shade = 1.0 - 0.5 * float(np.clip(distance(part), -0.3, 0.3))
        r, g, b = (float(c) for c in np.clip(part.color * shade, 0, 255))
        thickness = max(int(round(part.radius * 2 * scale)), 1)
        if part.ring is not None:
            points = np.array([pixel((p[0], p[1], p[2])) for p in part.ring], np.int32)
            cv2.polylines(sprite, [points], True, (r, g, b, 255), max(thickness, 2))
            continue
        cv2.line(sprite, pixel(part.a), pixel(part.b), (r, g, b, 255), thickness)
    return sprite


def _grain(rng: np.random.Generator, sprite: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adds folds, and light from above, to the colors of a sprite."""
    height, width = sprite.shape[:2]
    amount = textures.noise_patch(rng, height, width, 4) * 0.08
    amount = amount + np.linspace(0.1, -0.12, height, dtype=np.float32)[:, None]
    colors = sprite[..., :3] * (1 + amount[..., None])
    return np.asarray(np.clip(colors, 0, 255).astype(np.uint8))
