"""What is drawn of a result and under which names it is written."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import UsageError
from deeplab2_edge.files import ensure_output_dir
from deeplab2_edge.images import write_png
from deeplab2_edge.runtime.draw import DEPTH_RANGE, color_depth, draw_panel
from deeplab2_edge.runtime.point_cloud import (
    Camera,
    PointCloud,
    Vector,
    default_eye,
    render_points,
    write_ply,
)
from deeplab2_edge.runtime.results import PanopticResult
from deeplab2_edge.runtime.video import VideoWriter, open_video

Image = NDArray[np.uint8]

# What can be drawn, in the order of a panel.
KINDS = ("overlay", "semantic", "instances", "depth", "point-cloud", "panel")
_OF_INSTANCES = {"instances"}
_OF_DEPTH = {"depth", "point-cloud"}
# Names of the pictures: NAME_<word>.png, NAME_<word>.mp4.
_WORDS = {
    "overlay": "overlay",
    "semantic": "semantic",
    "instances": "instances",
    "depth": "depth_color",
    "point-cloud": "points",
    "panel": "panel",
}
_TITLES = {
    "overlay": "panoptic",
    "semantic": "semantic",
    "instances": "instances",
    "depth": "depth",
    "point-cloud": "point cloud",
}
# As records and the data sets with depth store it; 0 is unknown.
_DEPTH_PER_METER = 256
_MAX_DEPTH = 65535


@dataclass(frozen=True)
class ViewOptions:
    """Says what is drawn, and how.

    Attributes:
        kinds: Of `KINDS`.
        camera: Of the images; for point clouds.
        point_colors: `image` or `panoptic`.
        eye: From where a cloud is looked at, (x, y, z) in meters; None chooses for the
            first frame and keeps it.
        depth_range: Meters of the first and last color of depth.
    """

    kinds: tuple[str, ...]
    camera: Camera = field(default_factory=Camera)
    point_colors: str = "image"
    eye: Vector | None = None
    depth_range: tuple[float, float] = DEPTH_RANGE


@dataclass(frozen=True, eq=False)
class Drawn:
    """Holds what was drawn of one image.

    Attributes:
        pictures: uint8 `[H, W, 3]` RGB by kind.
        depth: `[H, W]` uint16, meters * 256, if depth is drawn.
        cloud: If a point cloud is drawn.
    """

    pictures: Mapping[str, Image]
    depth: NDArray[np.uint16] | None = None
    cloud: PointCloud | None = None


def parse_kinds(text: str) -> tuple[str, ...]:
    """Reads a list such as `overlay,depth`; `all` stays for `choose_kinds`.

    Raises:
        UsageError: If a word is unknown.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in (*KINDS, "all"):
            raise UsageError(
                f"there is no picture {word!r}; there are {', '.join(KINDS)} and all, "
                "separated by commas"
            )
    return tuple(dict.fromkeys(words))


def choose_kinds(
    asked: Sequence[str], *, has_instances: bool, has_depth: bool, source: str
) -> tuple[str, ...]:
    """Finds out what to draw.

    Args:
        asked: Of `KINDS`, or `all`; nothing asks for the overlay, and for the depth
            where there is any.
        has_instances: Whether what is drawn has instances.
        has_depth: Whether it has depth.
        source: Model or data, for the message.

    Raises:
        UsageError: If something is asked for that cannot be had.
    """
    lacking: set[str] = set() if has_instances else set(_OF_INSTANCES)
    lacking |= set() if has_depth else _OF_DEPTH
    if "all" in asked:
        return tuple(kind for kind in KINDS if kind not in lacking)
    if not asked:
        return ("overlay", "depth") if has_depth else ("overlay",)
    for kind in asked:
        if kind in lacking:
            what = "instances" if kind in _OF_INSTANCES else "depth"
            here = [word for word in KINDS if word not in lacking]
            raise UsageError(
                f"{source}: has no {what}, so there is no picture {kind!r}; there are "
                f"{', '.join(here)}"
            )
    return tuple(kind for kind in KINDS if kind in asked)


class Artist:
    """Draws results, the frames of one video alike.

    Args:
        options: What to draw.
    """

    def __init__(self, options: ViewOptions) -> None:
        self.options = options
        self._eye = options.eye

    def begin_video(self) -> None:
        """Forgets from where the last point clouds were looked at."""
        self._eye = self.options.eye

    def draw(self, result: PanopticResult, *, camera: Camera | None = None) -> Drawn:
        """Draws everything that is asked for.

        Args:
            result: What to draw.
            camera: Of this image, if it is known better than for all.

        Raises:
            UsageError: If the result has no depth and it takes some, or the camera does
                not fit the image.
        """
        kinds, camera = self.options.kinds, camera or self.options.camera
        parts = [kind for kind in KINDS if kind in kinds and kind != "panel"]
        if kinds == ("panel",):
            parts = _panel_parts(result)
        pictures: dict[str, Image] = {}
        depth = cloud = None
        for kind in parts:
            if kind == "point-cloud":
                cloud = result.point_cloud(camera, colors=self.options.point_colors)
                pictures[kind] = self._render(cloud, camera, result)
            else:
                pictures[kind] = self._paint(kind, result)
        if "depth" in kinds and result.depth is not None:
            depth = encode_depth(result.depth)
        if "panel" in kinds:
            cells = [("image", result.image)]
            cells += [
                (_TITLES[k], self._cell(k, p, result)) for k, p in pictures.items()
            ]
            pictures["panel"] = draw_panel(cells)
        kept = {kind: pictures[kind] for kind in KINDS if kind in kinds}
        return Drawn(kept, depth, cloud if "point-cloud" in kinds else None)

    def _paint(self, kind: str, result: PanopticResult) -> Image:
        if kind == "overlay":
            return result.overlay()
        if kind == "semantic":
            return result.semantic_overlay()
        if kind == "instances":
            return result.instance_map()
        return result.depth_map(limits=self.options.depth_range)

    def _cell(self, kind: str, picture: Image, result: PanopticResult) -> Image:
        """Gives a picture as wide as the image: without what stands beside it."""
        if picture.shape == result.image.shape:
            return picture
        if kind == "depth" and result.depth is not None:
            return color_depth(result.depth, limits=self.options.depth_range)
        return picture[:, : result.image.shape[1]]

    def _render(
        self, cloud: PointCloud, camera: Camera, result: PanopticResult
    ) -> Image:
        height, width = result.panoptic.shape
        if self._eye is None:
            self._eye = default_eye(cloud)
        intrinsics = camera.at((height, width))
        return render_points(cloud, intrinsics, (height, width), eye=self._eye)


def encode_depth(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Gives depth as it is stored: meters * 256, 0 unknown, at most 255.996 m."""
    known = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    stored = np.minimum(np.rint(known * _DEPTH_PER_METER), _MAX_DEPTH)
    return np.asarray(stored, np.uint16)


def save_drawn(folder: Path, stem: str, drawn: Drawn) -> dict[str, Path]:
    """Writes what was drawn of one image, each file whole or not at all.

    Returns:
        Paths by word: those of pictures, `depth` (16-bit PNG) and `points_ply`.

    Raises:
        OutputError: If a file cannot be written.
    """
    paths = {}
    for kind, picture in drawn.pictures.items():
        paths[_WORDS[kind]] = folder / f"{stem}_{_WORDS[kind]}.png"
        write_png(paths[_WORDS[kind]], picture)
    if drawn.depth is not None:
        paths["depth"] = folder / f"{stem}_depth.png"
        write_png(paths["depth"], drawn.depth)
    if drawn.cloud is not None:
        paths["points_ply"] = folder / f"{stem}_points.ply"
        write_ply(paths["points_ply"], drawn.cloud)
    return paths


class VideoViews:
    """Writes what is drawn of the frames of a video. Made by `open_views`."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        writers: Mapping[str, VideoWriter],
        paths: Mapping[str, Path],
    ) -> None:
        self.paths = dict(paths)
        self._folder = folder
        self._stem = stem
        self._writers = writers
        self._count = 0

    def write(self, drawn: Drawn) -> None:
        """Appends a frame; depth and points become files of their own.

        Raises:
            OutputError: If something cannot be written.
        """
        for kind, picture in drawn.pictures.items():
            self._writers[kind].write(picture)
        number = f"{self._count:06d}"
        if drawn.depth is not None:
            write_png(self._frame("depth") / f"{number}.png", drawn.depth)
        if drawn.cloud is not None:
            write_ply(self._frame("points_ply") / f"{number}.ply", drawn.cloud)
        self._count += 1

    def _frame(self, word: str) -> Path:
        if word not in self.paths:
            name = f"{self._stem}_{word.removesuffix('_ply')}"
            self.paths[word] = ensure_output_dir(self._folder / name)
        return self.paths[word]


@contextlib.contextmanager
def open_views(
    folder: Path, stem: str, kinds: Collection[str], fps: float
) -> Iterator[VideoViews]:
    """Opens one video for each kind of picture; they appear when they are complete.

    Raises:
        OutputError: If they cannot be written.
    """
    with contextlib.ExitStack() as stack:
        writers, paths = {}, {}
        for kind in (kind for kind in KINDS if kind in kinds):
            paths[_WORDS[kind]] = folder / f"{stem}_{_WORDS[kind]}.mp4"
            writers[kind] = stack.enter_context(open_video(paths[_WORDS[kind]], fps))
        yield VideoViews(folder, stem, writers, paths)


def _panel_parts(result: PanopticResult) -> list[str]:
    """Lists what a panel shows if nothing else is asked for: all there is."""
    parts = ["overlay", "semantic"]
    if result.metadata.thing_ids:
        parts.append("instances")
    if result.depth is not None:
        parts += ["depth", "point-cloud"]
    return parts
