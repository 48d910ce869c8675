"""Point clouds from depth: through the camera's numbers into space, and a picture.

Camera axes everywhere: x right, y down, z forward, in meters. Pixel centers lie at
whole numbers.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.json_file import read_object
from deeplab2_edge.errors import UsageError
from deeplab2_edge.files import atomic_write

Vector = tuple[float, float, float]

# Degrees from the left to the right edge, of a camera that nobody knows: that of most
# phones and of the cameras of the street data sets lies between 50 and 70.
DEFAULT_FIELD_OF_VIEW = 60.0

_BACKGROUND = (24, 24, 24)
_NEAR = 0.05  # meters; what is closer to the viewing camera is not drawn
_MAX_SPLAT = 9  # px: the largest side of what one point paints
# Where the viewing camera stands by default, in parts of the median depth.
_DEFAULT_EYE = (0.2, -0.25, -0.15)
# Neighbors whose depths differ by at most this share lie on one surface.
_SURFACE_STEP = 0.15
_NAMES = ("fx", "fy", "cx", "cy")
# A vertex of a PLY file.
_VERTEX = np.dtype(
    [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
)


@dataclass(frozen=True)
class Intrinsics:
    """Holds the pinhole camera of an image, in pixels.

    The point (x, y, z) is seen at column `fx * x / z + cx`, row `fy * y / z + cy`.

    Raises:
        UsageError: On creation, if a number is not finite or a focal length not
            positive.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        for name in _NAMES:
            value = getattr(self, name)
            if not math.isfinite(value) or (name[0] == "f" and value <= 0):
                kind = "positive number" if name[0] == "f" else "number"
                raise UsageError(f"camera: {name} is {value}; expected a {kind}")


@dataclass(frozen=True)
class Camera:
    """Gives the pinhole camera of images: known numbers, or a field of view.

    Attributes:
        intrinsics: As measured, None if unknown.
        size: (height, width) of the images it was measured with; None for all.
        field_of_view: Degrees from left to right, used if `intrinsics` is None.

    Raises:
        UsageError: On creation, if the field of view is not between 1 and 179.
    """

    intrinsics: Intrinsics | None = None
    size: tuple[int, int] | None = None
    field_of_view: float = DEFAULT_FIELD_OF_VIEW

    def __post_init__(self) -> None:
        if not 1 <= self.field_of_view <= 179:
            raise UsageError(
                f"field of view is {self.field_of_view}; expected degrees from 1 to 179"
            )

    def at(self, size: tuple[int, int]) -> Intrinsics:
        """Gives the camera of an image of (height, width) `size`.

        Numbers measured at another size are scaled with it, corners on corners.

        Raises:
            UsageError: If the optical axis misses the image, as when the numbers
                belong to images of another size.
        """
        height, width = size
        known = self.intrinsics
        if known is None:
            focal = width / 2 / math.tan(math.radians(self.field_of_view) / 2)
            return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
        if self.size is not None and self.size != size:
            y = max(height - 1, 1) / max(self.size[0] - 1, 1)
            x = max(width - 1, 1) / max(self.size[1] - 1, 1)
            known = Intrinsics(known.fx * x, known.fy * y, known.cx * x, known.cy * y)
        if not (0 <= known.cx <= width and 0 <= known.cy <= height):
            raise UsageError(
                f"camera: cx, cy is {known.cx:g}, {known.cy:g}, outside an image of "
                f"{height}x{width} (height x width); the numbers are of another size: "
                'say of which in a JSON file, {"fx": ..., "fy": ..., "cx": ..., '
                '"cy": ..., "image_size": [height, width]}'
            )
        return known


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Holds colored points.

    Attributes:
        points_xyz: `[N, 3]` float32, camera axes, meters.
        colors: `[N, 3]` uint8 RGB.
        spacing: `[N, 2]` float32, meters to the neighbors beside and below on the same
            surface: how large a point has to be drawn to leave no gaps.
    """

    points_xyz: NDArray[np.float32]
    colors: NDArray[np.uint8]
    spacing: NDArray[np.float32]


def parse_camera(text: str) -> Camera:
    """Reads what a user says about a camera: `fx,fy,cx,cy`, or a JSON file.

    The file holds `fx`, `fy`, `cx`, `cy` and, if the images may have another size than
    those it was measured with, `image_size` ([height, width]). The camera files of
    Cityscapes (`intrinsic` with `fx`, `fy`, `u0`, `v0`) are read too.

    Raises:
        UsageError: If it is neither, or a number makes no sense.
        DataError: If the file cannot be read.

    Example:
        >>> parse_camera("500,500,320,240").at((480, 640)).fx
        500.0
    """
    parts = text.split(",")
    if len(parts) == len(_NAMES):
        try:
            return Camera(Intrinsics(*(float(part) for part in parts)))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
    elif Path(text).is_file():
        return _read_camera(Path(text))
    raise UsageError(
        f"camera is {text!r}; expected four numbers fx,fy,cx,cy in pixels, or a JSON "
        "file that holds them"
    )


def make_point_cloud(
    depth: NDArray[np.float32],
    colors: NDArray[np.uint8],
    intrinsics: Intrinsics,
    *,
    is_shown: NDArray[np.bool_] | None = None,
) -> PointCloud:
    """Turns every pixel with depth into a point.

    Args:
        depth: `[H, W]` meters along the optical axis; 0 and what is not finite is
            unknown.
        colors: `[H, W, 3]` uint8 RGB.
        intrinsics: Of the image.
        is_shown: `[H, W]`, False leaves a pixel out.

    Raises:
        UsageError: If the shapes differ.

    Example:
        >>> depth = np.full((3, 3), 2, np.float32)
        >>> cloud = make_point_cloud(
        ...     depth, np.zeros((3, 3, 3), np.uint8), Intrinsics(1, 1, 1, 1)
        ... )
        >>> cloud.points_xyz[0].tolist()
        [-2.0, -2.0, 2.0]
    """
    if colors.shape != (*depth.shape, 3):
        raise UsageError(
            f"depth has shape {depth.shape}, colors {colors.shape}; expected [H, W] "
            "and [H, W, 3]"
        )
    is_known = np.isfinite(depth) & (depth > 0)
    if is_shown is not None:
        is_known &= is_shown
    rows, columns = np.nonzero(is_known)
    z = depth[rows, columns].astype(np.float32)
    points = np.empty((len(z), 3), np.float32)
    points[:, 0] = (columns - intrinsics.cx) / intrinsics.fx * z
    points[:, 1] = (rows - intrinsics.cy) / intrinsics.fy * z
    points[:, 2] = z
    spacing = np.empty((len(z), 2), np.float32)
    for axis, focal in ((1, intrinsics.fx), (0, intrinsics.fy)):
        slope = _slope(depth, is_known, axis)[rows, columns]
        spacing[:, 1 - axis] = np.hypot(z / focal, slope)
    return PointCloud(points, colors[rows, columns], spacing)


def write_ply(path: str | os.PathLike[str], cloud: PointCloud) -> None:
    """Writes points as a binary little-endian PLY file, whole or not at all.

    Raises:
        OutputError: If the file cannot be written.
    """
    vertices = np.empty(len(cloud.points_xyz), _VERTEX)
    for column, axis in enumerate("xyz"):
        vertices[axis] = cloud.points_xyz[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = cloud.colors[:, column]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment meters; x right, y down, z forward",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header",
    ]
    header = "\n".join(lines) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_bytes(header.encode("ascii") + vertices.tobytes())


def default_eye(cloud: PointCloud) -> Vector:
    """Gives a place to look at a cloud from: behind, above and right of the camera."""
    scale = _median_depth(cloud)
    x, y, z = (part * scale for part in _DEFAULT_EYE)
    return x, y, z


def render_points(
    cloud: PointCloud,
    intrinsics: Intrinsics,
    size: tuple[int, int],
    *,
    eye: Vector,
    target: Vector | None = None,
) -> NDArray[np.uint8]:
    """Draws a cloud as a camera at another place sees it.

    Every point paints a rectangle as large as its distance to its neighbors; of two
    points at one pixel the nearer stays.

    Args:
        cloud: The points.
        intrinsics: Of the viewing camera.
        size: (height, width) of the picture.
        eye: Where the camera stands, in the axes of the cloud.
        target: Where it looks; by default straight ahead of the first camera, at the
            median depth of the points.

    Returns:
        `[H, W, 3]` uint8 RGB.

    Raises:
        UsageError: If `eye` and `target` are one place.
    """
    goal = np.array(target or (0.0, 0.0, _median_depth(cloud)))
    rotation = _look_at(np.array(eye, np.float64), goal)
    seen = (cloud.points_xyz - np.array(eye)) @ rotation.T
    in_front = seen[:, 2] > _NEAR
    seen, colors = seen[in_front], cloud.colors[in_front]
    z = seen[:, 2]
    sides = cloud.spacing[in_front] * (intrinsics.fx / z)[:, np.newaxis]
    # A side of one pixel and a rounding error is one pixel.
    sides = np.clip(np.ceil(sides - 0.01), 1, _MAX_SPLAT).astype(np.int64)
    # Left and upper pixel of the rectangle; far outside, floats do not fit integers.
    far = 4.0 * max(size)
    left = np.clip(intrinsics.fx * seen[:, 0] / z + intrinsics.cx, -far, far)
    top = np.clip(intrinsics.fy * seen[:, 1] / z + intrinsics.cy, -far, far)
    left = np.rint(left - (sides[:, 0] - 1) / 2).astype(np.int64)
    top = np.rint(top - (sides[:, 1] - 1) / 2).astype(np.int64)
    # Depth in the upper and the point in the lower half of one number: the least is
    # the nearest, and the first of equals, whatever the order of painting.
    bits = z.astype(np.float32).view(np.uint32).astype(np.uint64)
    ranks = (bits << np.uint64(32)) | np.arange(len(z), dtype=np.uint64)
    buffer = np.full(size[0] * size[1], np.iinfo(np.uint64).max, np.uint64)
    width, height = sides.max(axis=0, initial=0).tolist()
    for dy in range(height):
        for dx in range(width):
            row, column = top + dy, left + dx
            is_painted = (dx < sides[:, 0]) & (dy < sides[:, 1])
            is_painted &= (row >= 0) & (row < size[0])
            is_painted &= (column >= 0) & (column < size[1])
            pixels = row[is_painted] * size[1] + column[is_painted]
            np.minimum.at(buffer, pixels, ranks[is_painted])
    picture = np.empty((buffer.size, 3), np.uint8)
    picture[:] = _BACKGROUND
    is_hit = buffer != np.iinfo(np.uint64).max
    picture[is_hit] = colors[(buffer[is_hit] & np.uint64(0xFFFFFFFF)).astype(np.intp)]
    return picture.reshape(*size, 3)


def _slope(
    depth: NDArray[np.float32], is_known: NDArray[np.bool_], axis: int
) -> NDArray[np.float32]:
    """Gives the largest step in depth to a neighbor on the same surface, in meters."""
    ahead = tuple(slice(1, None) if n == axis else slice(None) for n in (0, 1))
    behind = tuple(slice(None, -1) if n == axis else slice(None) for n in (0, 1))
    known = np.where(is_known, depth, np.float32(np.inf)).astype(np.float32)
    nearer = np.minimum(known[ahead], known[behind])
    both = is_known[ahead] & is_known[behind]
    step = np.zeros(nearer.shape, np.float32)
    np.subtract(known[ahead], known[behind], out=step, where=both)
    step = np.abs(step)
    step[step > _SURFACE_STEP * nearer] = 0
    slope = np.zeros(depth.shape, np.float32)
    slope[ahead] = step
    slope[behind] = np.maximum(slope[behind], step)
    return slope


def _median_depth(cloud: PointCloud) -> float:
    z = cloud.points_xyz[:, 2]
    return float(np.median(z)) if len(z) else 1.0


def _look_at(eye: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[Any]:
    """Gives the rotation from the axes of the cloud to those of the viewing camera."""
    forward = target - eye
    distance = float(np.linalg.norm(forward))
    if not distance > 0 or not math.isfinite(distance):
        raise UsageError(
            f"the viewing camera stands at {tuple(eye.tolist())}, where it looks to; "
            "give it another place"
        )
    forward = forward / distance
    right = np.cross((0.0, 1.0, 0.0), forward)
    if np.linalg.norm(right) < 1e-6:  # straight up or down
        right = np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def _read_camera(path: Path) -> Camera:
    document = read_object(path)
    names: tuple[str, ...] = _NAMES
    nested = document.get("intrinsic")
    values = document
    if isinstance(nested, dict):  # as Cityscapes writes it
        values, names = nested, ("fx", "fy", "u0", "v0")
    numbers = []
    for name in names:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            found = "missing" if value is None else f"{value!r}"
            raise UsageError(
                f"{path}: `{name}` is {found}; expected a number, in pixels"
            )
        numbers.append(float(value))
    try:
        return Camera(Intrinsics(*numbers), _image_size(document))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _image_size(document: dict[str, Any]) -> tuple[int, int] | None:
    size = document.get("image_size")
    if size is None:
        return None
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and side > 0 for side in size)
    ):
        raise UsageError(f"`image_size` is {size!r}; expected [height, width]")
    return size[0], size[1]
