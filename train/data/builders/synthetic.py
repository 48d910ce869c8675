"""Records and folders of rendered street scenes with exact labels."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.description import save_description
from deeplab2_edge.datasets.folders import DESCRIPTION_NAME
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.street import SYNTHETIC_STREET
from deeplab2_edge.errors import UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.images import encode_jpeg, write_png
from deeplab2_edge.progress import progress
from deeplab2_edge.records import DEPTH_SCALE, Frame, encode_example
from deeplab2_edge.synth import Scene, render_scene, render_video
from deeplab2_edge.train.data.builders.parallel import run_tasks

# Real cameras write JPEG too; 95 leaves edges clean.
_JPEG_QUALITY = 95
_MAX_DEPTH_PNG = 65535
_TASK_ITEMS = 16  # scenes per task when a folder is written

Neighbors = Literal["both", "previous", "next"]


@dataclass(frozen=True)
class SceneSource:
    """Renders one record per seed.

    Attributes:
        seeds: One scene each.
        size: Height and width.
    """

    seeds: range
    size: tuple[int, int]

    @property
    def info(self) -> DatasetInfo:
        """The data set of rendered scenes."""
        return SYNTHETIC_STREET

    def __len__(self) -> int:
        return len(self.seeds)

    def encode(self, index: int) -> list[bytes]:
        """Returns the one record of a scene, without depth."""
        seed = self.seeds[index]
        scene = render_scene(seed, size=self.size)
        return [encode_example(_frame(scene), filename=scene_name(seed))]

    def state(self, index: int) -> list[object]:
        """Is empty: a picture follows from what `fingerprint` holds."""
        return []

    def fingerprint(self) -> str:
        """Changes with the seeds, the size and the look of the first scene."""
        return _fingerprint(self, [self.seeds.start, len(self.seeds), *self.size])


@dataclass(frozen=True)
class VideoSource:
    """Renders one video per seed and writes its frames with their neighbors.

    Attributes:
        seeds: One video each.
        num_frames: Frames per video, at least 2.
        size: Height and width.
        neighbors: `"previous"` stores the frame before (the first frame stands for its
            own), as Motion-DeepLab reads it; `"next"` the frame after and the depth, as
            ViP-DeepLab does; `"both"` all of it. Where the frame after is stored, the
            last frame has no record.
    """

    seeds: range
    num_frames: int
    size: tuple[int, int]
    neighbors: Neighbors = "both"

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise UsageError(
                f"a video has {self.num_frames} frames; records of pairs need 2"
            )

    @property
    def info(self) -> DatasetInfo:
        """The data set of rendered scenes."""
        return SYNTHETIC_STREET

    def __len__(self) -> int:
        return len(self.seeds)

    def encode(self, index: int) -> list[bytes]:
        """Returns the records in the order of time; see `neighbors` for how many."""
        seed = self.seeds[index]
        scenes = list(render_video(seed, num_frames=self.num_frames, size=self.size))
        frames = [_frame(scene) for scene in scenes]
        has_previous, has_next = self.neighbors != "next", self.neighbors != "previous"
        return [
            encode_example(
                frames[position],
                filename=frame_name(seed, position),
                sequence_id=scene_name(seed),
                frame_id=f"{position:06d}",
                previous=frames[max(position - 1, 0)] if has_previous else None,
                following=frames[position + 1] if has_next else None,
                depth=stored_depth(scenes[position].depth) if has_next else None,
            )
            for position in range(self.num_frames - has_next)
        ]

    def state(self, index: int) -> list[object]:
        """Is empty: a picture follows from what `fingerprint` holds."""
        return []

    def fingerprint(self) -> str:
        """Changes with seeds, length, size and the records of the first video."""
        words = [self.seeds.start, len(self.seeds), self.num_frames, *self.size]
        return _fingerprint(self, words)


def scene_name(seed: int) -> str:
    """Names the scene or video of a seed."""
    return f"{seed:07d}"


def frame_name(seed: int, position: int) -> str:
    """Names one frame of a video."""
    return f"{scene_name(seed)}_{position:06d}"


def stored_depth(depth: NDArray[np.float32]) -> NDArray[np.int32]:
    """Turns metres into units of 1/256 metre, at most 65535 (256 m), 0 unknown."""
    units = np.rint(depth * np.float32(DEPTH_SCALE))
    return np.asarray(np.minimum(units, _MAX_DEPTH_PNG), np.int32)


def write_scene_folder(
    output_dir: str | os.PathLike[str],
    seeds: range,
    *,
    size: tuple[int, int],
    num_frames: int = 0,
    workers: int = 1,
    quiet: bool = False,
) -> int:
    """Writes rendered scenes as a folder in COCO panoptic layout, with depth.

    The folder holds `images/*.jpg`, `panoptic/*.png`, `panoptic.json`, `depth/*.png`
    (16-bit, metres * 256, 0 unknown), `intrinsics.json` (image name -> 3x3 pinhole
    matrix in pixels) and `dataset.json`. A segment's id is class * 1000 + instance
    + 1, so an instance keeps its id through a video. The frames of a video lie in a
    folder of their own: `images/0000005/000000.jpg`.

    Args:
        output_dir: The folder; made if missing.
        seeds: One scene or video each.
        size: Height and width.
        num_frames: Frames per video; 0 for single scenes.
        workers: Processes; 1 works in this one.
        quiet: Show no progress.

    Returns:
        The number of images.

    Raises:
        OutputError: If a file cannot be written.
    """
    output = ensure_output_dir(output_dir)
    step = 1 if num_frames else _TASK_ITEMS
    tasks = [seeds[start : start + step] for start in range(0, len(seeds), step)]
    pictures: dict[str, dict[str, Any]] = {}

    def keep(task: range, written: dict[str, dict[str, Any]]) -> None:
        pictures.update(written)

    items = run_tasks(
        _FolderWriter(output, size, num_frames), tasks, keep, workers=workers
    )
    for _ in progress(items, total=len(seeds), label="writing images", quiet=quiet):
        pass
    info = SYNTHETIC_STREET
    names = sorted(pictures)
    _write_json(output / "panoptic.json", _coco_document(info, names, size, pictures))
    _write_json(
        output / "intrinsics.json", {n: pictures[n]["intrinsics"] for n in names}
    )
    save_description(info, output / DESCRIPTION_NAME)
    return len(names)


@dataclass(frozen=True)
class _FolderWriter:
    """Renders and writes some seeds; sent once to every worker."""

    output: Path
    size: tuple[int, int]
    num_frames: int

    def __call__(
        self, seeds: range, count: Callable[[], None]
    ) -> dict[str, dict[str, Any]]:
        written = {}
        for seed in seeds:
            for name, scene in self._scenes(seed):
                written[name] = self._write(name, scene)
            count()
        return written

    def _scenes(self, seed: int) -> Iterator[tuple[str, Scene]]:
        if not self.num_frames:
            yield scene_name(seed), render_scene(seed, size=self.size)
            return
        video = render_video(seed, num_frames=self.num_frames, size=self.size)
        for position, scene in enumerate(video):
            # A folder for each video, in which its frames follow each other.
            yield f"{scene_name(seed)}/{position:06d}", scene

    def _write(self, name: str, scene: Scene) -> dict[str, Any]:
        for folder in ("images", "panoptic", "depth"):
            ensure_output_dir((self.output / folder / name).parent)
        with atomic_write(self.output / "images" / f"{name}.jpg") as temporary:
            temporary.write_bytes(_jpeg(scene))
        depth = stored_depth(scene.depth).astype(np.uint16)
        write_png(self.output / "depth" / f"{name}.png", depth)
        info = SYNTHETIC_STREET
        is_void = scene.panoptic == info.ignored_panoptic_id
        ids = np.where(is_void, 0, scene.panoptic + 1)
        write_png(self.output / "panoptic" / f"{name}.png", _id_to_rgb(ids))
        segments = _segments(ids, info)
        return {"segments": segments, "intrinsics": scene.intrinsics.tolist()}


def _frame(scene: Scene) -> Frame:
    return Frame(_jpeg(scene), scene.panoptic)


def _jpeg(scene: Scene) -> bytes:
    return encode_jpeg(scene.image, quality=_JPEG_QUALITY)


def _fingerprint(source: SceneSource | VideoSource, words: list[int]) -> str:
    digest = hashlib.sha256(repr((type(source).__name__, words)).encode())
    if len(source):  # a renderer that draws differently makes another data set
        for record in source.encode(0):
            digest.update(record)
    return digest.hexdigest()


def _id_to_rgb(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)


def _segments(ids: NDArray[np.int32], info: DatasetInfo) -> list[dict[str, Any]]:
    assert info.category_ids is not None
    segments = []
    for segment_id, area in zip(*np.unique(ids, return_counts=True), strict=True):
        if segment_id == 0:
            continue
        rows, columns = np.nonzero(ids == segment_id)
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
        semantic = (int(segment_id) - 1) // info.label_divisor
        segments.append(
            {
                "id": int(segment_id),
                "category_id": info.category_ids[semantic],
                "area": int(area),
                "bbox": [left, top, width, height],
                "iscrowd": 0,
            }
        )
    return segments


def _coco_document(
    info: DatasetInfo,
    names: list[str],
    size: tuple[int, int],
    pictures: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    assert info.category_ids is not None
    return {
        "images": [
            {"id": i, "file_name": f"{n}.jpg", "height": size[0], "width": size[1]}
            for i, n in enumerate(names, start=1)
        ],
        "annotations": [
            {
                "image_id": i,
                "file_name": f"{n}.png",
                "segments_info": pictures[n]["segments"],
            }
            for i, n in enumerate(names, start=1)
        ],
        "categories": [
            {
                "id": category,
                "name": info.class_names[index],
                "isthing": int(index in info.thing_ids),
                "color": list(info.colors[index]),
            }
            for index, category in enumerate(info.category_ids)
        ],
    }


def _write_json(path: Path, document: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document) + "\n")
