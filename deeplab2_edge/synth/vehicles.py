"""Cars: two prisms each, with glass, wheels, lamps and plates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.synth.camera import cross
from deeplab2_edge.synth.canvas import Canvas
from deeplab2_edge.synth.street import Light
from deeplab2_edge.synth.structures import UP, around, convex_shadow

Points = NDArray[np.float64]


@dataclass(frozen=True)
class CarShape:
    """Describes a car in metres; places along it run from 0 (rear) to 1 (front).

    Attributes:
        length, width, height: Outer size.
        belt: Height of the lower edge of the windows, as a share of the height.
        cabin: Places of rear foot, rear roof, front roof and front foot of the cabin.
        nose: Height of the bonnet's front edge, as a share of the belt.
        tail: The same at the rear.
    """

    length: float
    width: float
    height: float
    belt: float
    cabin: tuple[float, float, float, float]
    nose: float
    tail: float


CAR_SHAPES: dict[str, CarShape] = {
    "hatchback": CarShape(3.9, 1.72, 1.48, 0.6, (0.01, 0.12, 0.56, 0.74), 0.84, 1.0),
    "sedan": CarShape(4.6, 1.8, 1.44, 0.6, (0.1, 0.26, 0.58, 0.72), 0.84, 0.95),
    "estate": CarShape(4.7, 1.8, 1.48, 0.59, (0.01, 0.07, 0.58, 0.72), 0.84, 1.0),
    "suv": CarShape(4.5, 1.88, 1.72, 0.6, (0.01, 0.09, 0.6, 0.73), 0.9, 1.0),
    "van": CarShape(5.0, 1.95, 2.1, 0.56, (0.0, 0.02, 0.72, 0.88), 0.82, 1.0),
}

_DETAIL_SCALE = 25.0  # pixels per metre; below, small parts are left out
_PAINTS = (
    (196, 24, 30),
    (28, 58, 140),
    (232, 232, 230),
    (28, 29, 32),
    (150, 154, 160),
    (96, 100, 106),
    (36, 92, 62),
    (226, 186, 44),
    (120, 60, 40),
    (90, 150, 190),
    (200, 190, 168),
    (110, 30, 60),
)


def car_paint(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draws a paint, RGB 0..255."""
    base = np.array(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.8, 1.1)
    r, g, b = (float(c) for c in np.clip(base + rng.normal(0, 8, 3), 8, 245))
    return r, g, b


@dataclass(frozen=True)
class Car:
    """Is a car on the ground; `forward` is where it heads, `[3]`, horizontal."""

    base: Points
    forward: Points
    shape: CarShape
    paint: tuple[float, float, float]
    label: int
    has_lamps_on: bool

    def _local(self, points: list[tuple[float, float, float]]) -> Points:
        """Turns (place along, across -1..1, height) into world points."""
        s = self.shape
        across = np.array([self.forward[2], 0.0, -self.forward[0]])
        p = np.array(points)
        return np.asarray(
            self.base
            + (p[:, :1] - 0.5) * s.length * self.forward
            + p[:, 1:2] * s.width / 2 * across
            + p[:, 2:] * UP
        )

    def _outline(self) -> list[tuple[float, float]]:
        """Returns the side view of the lower body: (place, height)."""
        s = self.shape
        belt = s.belt * s.height
        return [
            (0.01, 0.22),
            (0.99, 0.22),
            (1.0, belt * 0.5),
            (0.98, belt * s.nose),
            (s.cabin[3], belt),
            (s.cabin[0], belt),
            (0.0, belt * s.tail),
        ]

    def bounds(self) -> Points:
        """Returns points whose hull holds the body."""
        return around(self.base, 0.55 * self.shape.length, self.shape.height)

    def shadow(self, light: Light) -> list[Points]:
        s = self.shape
        foot = self._local([(0, -1, 0), (1, -1, 0), (1, 1, 0), (0, 1, 0)])
        belt = foot + UP * s.belt * s.height
        roof = self._local(
            [
                (s.cabin[1], -0.8, s.height),
                (s.cabin[2], -0.8, s.height),
                (s.cabin[2], 0.8, s.height),
                (s.cabin[1], 0.8, s.height),
            ]
        )
        return convex_shadow(light, np.concatenate([foot, belt, roof]))

    def contact(self) -> Points:
        """Returns the dark patch of ground under the car, a polygon."""
        return self._local(
            [(-0.01, -1.02, 0), (1.01, -1.02, 0), (1.01, 1.02, 0), (-0.01, 1.02, 0)]
        )

    def draw(self, canvas: Canvas, light: Light) -> None:
        self._draw_underside(canvas)
        outline = self._outline()
        paint = np.asarray(self.paint)
        s = self.shape
        # Upper faces, then the ends, from the outline's edges.
        for first, last in ((2, 3), (3, 4), (4, 5), (5, 6), (6, 0), (1, 2)):
            (a, ha), (b, hb) = outline[first], outline[last]
            self._panel(
                canvas, light, [(a, -1, ha), (b, -1, hb), (b, 1, hb), (a, 1, ha)], paint
            )
        for side in (-1.0, 1.0):
            if self._faces(canvas, side):
                self._draw_side(canvas, light, side, outline)
        belt = s.belt * s.height
        rear_foot, rear_roof, front_roof, front_foot = s.cabin
        top = s.height
        taper = 0.78
        glass = np.array([44.0, 52, 60])
        roof = [
            (rear_roof, -taper, top),
            (front_roof, -taper, top),
            (front_roof, taper, top),
            (rear_roof, taper, top),
        ]
        screen = [
            (front_foot, -0.96, belt),
            (front_foot, 0.96, belt),
            (front_roof, taper, top),
            (front_roof, -taper, top),
        ]
        back = [
            (rear_foot, 0.96, belt),
            (rear_foot, -0.96, belt),
            (rear_roof, -taper, top),
            (rear_roof, taper, top),
        ]
        self._panel(canvas, light, roof, paint)
        for pane in (screen, back):
            self._panel(canvas, light, pane, paint)
            self._panel(canvas, light, _inset(pane, 0.1), glass, gloss=True)
        self._draw_ends(canvas, light)

    def _faces(self, canvas: Canvas, side: float) -> bool:
        across = np.array([self.forward[2], 0.0, -self.forward[0]]) * side
        edge = self.base + across * self.shape.width / 2
        return float(across @ (canvas.camera.position - edge)) > 0

    def _panel(
        self,
        canvas: Canvas,
        light: Light,
        points: list[tuple[float, float, float]],
        color: Points,
        *,
        gloss: bool = False,
    ) -> None:
        """Paints a panel if the camera sees its side away from the middle."""
        world = self._local(points)
        normal = cross(world[1] - world[0], world[2] - world[0])
        length = float(np.linalg.norm(normal))
        if length < 1e-9:
            return
        normal = normal / length
        inside = self.base + UP * self.shape.height * 0.5
        if normal @ (world.mean(0) - inside) < 0:
            normal = -normal
        if normal @ (canvas.camera.position - world.mean(0)) <= 0:
            return
        lit = color * light.on(normal)
        if gloss:
            sky = lit + 70 * light.ambient
            canvas.fill_polygon(world, sky, self.label, bottom_color=lit)
        else:
            canvas.fill_polygon(world, lit * 1.06, self.label, bottom_color=lit * 0.88)

    def _draw_underside(self, canvas: Canvas) -> None:
        for x in (0.03, 0.97):
            quad = self._local(
                [(x, -0.92, 0.08), (x, 0.92, 0.08), (x, 0.92, 0.3), (x, -0.92, 0.3)]
            )
            canvas.fill_polygon(quad, (14, 14, 15), self.label)
        for y in (-0.88, 0.88):
            if not self._faces(canvas, y):
                continue
            quad = self._local(
                [(0.03, y, 0.1), (0.97, y, 0.1), (0.97, y, 0.3), (0.03, y, 0.3)]
            )
            canvas.fill_polygon(quad, (14, 14, 15), self.label)

    def _draw_side(
        self,
        canvas: Canvas,
        light: Light,
        side: float,
        outline: list[tuple[float, float]],
    ) -> None:
        s = self.shape
        paint = np.asarray(self.paint)
        belt, top = s.belt * s.height, s.height
        self._panel(canvas, light, [(x, side, h) for x, h in outline], paint)
        sill = [
            (0.02, side, 0.22),
            (0.98, side, 0.22),
            (0.98, side, 0.32),
            (0.02, side, 0.32),
        ]
        self._panel(canvas, light, sill, np.array([34.0, 34, 36]))
        rear_foot, rear_roof, front_roof, front_foot = s.cabin
        lean = 0.78 * side
        cabin = [
            (rear_foot, side * 0.96, belt),
            (front_foot, side * 0.96, belt),
            (front_roof, lean, top),
            (rear_roof, lean, top),
        ]
        self._panel(canvas, light, cabin, paint)
        middle = (rear_roof + front_roof) / 2
        glass = np.array([40.0, 47, 54])
        low, high = belt + 0.03, top - 0.09
        y_low, y_high = side * 0.955, side * 0.815
        gap = 0.012
        rear = [
            (rear_foot + 0.05, y_low, low),
            (middle - gap, y_low, low),
            (middle - gap, y_high, high),
            (rear_roof + 0.03, y_high, high),
        ]
        front = [
            (middle + gap, y_low, low),
            (front_foot - 0.04, y_low, low),
            (front_roof - 0.005, y_high, high),
            (middle + gap, y_high, high),
        ]
        for pane in (rear, front):
            self._panel(canvas, light, pane, glass, gloss=True)
        self._panel(
            canvas,
            light,
            [
                (middle - 0.002, side, 0.34),
                (middle + 0.002, side, 0.34),
                (middle + 0.002, side, belt),
                (middle - 0.002, side, belt),
            ],
            paint * 0.5,
        )
        angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        discs = [(0.36, 14.0), (0.2, 145.0)]
        if canvas.camera.pixels_per_meter(self.base) > _DETAIL_SCALE:
            discs = [(0.38, 10.0), (0.32, 24.0), (0.2, 150.0), (0.06, 60.0)]
        for x in (0.19, 0.81):
            for radius, color in discs:
                disc = [
                    (
                        x + radius / s.length * float(np.cos(a)),
                        side * 1.005,
                        0.32 + radius * float(np.sin(a)),
                    )
                    for a in angles
                ]
                self._panel(canvas, light, disc, np.full(3, color))

    def _draw_ends(self, canvas: Canvas, light: Light) -> None:
        s = self.shape
        belt = s.belt * s.height
        front_lamp = np.array([250.0, 246, 225]) * (1.0 if self.has_lamps_on else 0.85)
        rear_lamp = (
            np.array([230.0, 24, 20])
            if self.has_lamps_on
            else np.array([165.0, 22, 22])
        )
        for x, lamp, lamp_height in (
            (1.002, front_lamp, belt * 0.62),
            (-0.002, rear_lamp, belt * 0.7),
        ):

            def quad(
                y0: float, y1: float, h0: float, h1: float, x: float = x
            ) -> list[tuple[float, float, float]]:
                return [(x, y0, h0), (x, y1, h0), (x, y1, h1), (x, y0, h1)]

            self._panel(
                canvas, light, quad(-0.97, 0.97, 0.22, 0.36), np.array([40.0, 40, 42])
            )
            for side in (-1, 1):
                lamp_quad = quad(
                    0.62 * side, 0.95 * side, lamp_height, lamp_height + 0.15
                )
                world = self._local(lamp_quad)
                outward = self.forward * (1 if x > 0.5 else -1)
                if outward @ (canvas.camera.position - world[0]) > 0:
                    glow = lamp if self.has_lamps_on else lamp * light.diffuse
                    canvas.fill_polygon(world, glow, self.label)
            plate = (
                np.array([232.0, 232, 226]) if x > 0.5 else np.array([228.0, 196, 70])
            )
            self._panel(
                canvas, light, quad(-0.28, 0.28, belt * 0.48, belt * 0.48 + 0.12), plate
            )
            if x > 0.5:
                grille = quad(-0.55, 0.55, belt * 0.62, belt * 0.62 + 0.12)
                self._panel(canvas, light, grille, np.array([22.0, 22, 24]))


def _inset(
    points: list[tuple[float, float, float]], share: float
) -> list[tuple[float, float, float]]:
    """Shrinks a panel toward its middle, in its plane."""
    p = np.array(points)
    small = p + (p.mean(0) - p) * share
    return [(float(a), float(b), float(c)) for a, b, c in small]
