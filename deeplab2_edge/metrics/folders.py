"""Evaluation of folders of panoptic maps, made by whatever program.

Maps are read in these layouts, alike for predictions and ground truth:

    COCO panoptic    <name>.json and a folder <name>/ of PNGs (COCO, Cityscapes, ADE20K)
    results          NAME.json and NAME_panoptic.png, as `deeplab2-edge run` writes them
    label PNGs       NAME.png below the folder, or below its labels/: 8-bit RGB (R the
                     class, 256 * G + B the instance; KITTI-STEP, MOTChallenge-STEP),
                     16-bit grey (class * divisor + instance) or 8-bit grey (class)

Maps belong together by their names. Depth is NAME_depth.png beside label PNGs, 16-bit,
256 per meter, 0 where unknown.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.coco_panoptic import classes_of_categories, find_annotation
from deeplab2_edge.datasets.description import load_description
from deeplab2_edge.datasets.folders import (
    DESCRIPTION_NAME,
    frame_of_name,
    video_of_name,
)
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.datasets.json_file import objects, read_object, relative_path, whole
from deeplab2_edge.datasets.labels import (
    CocoLabel,
    LabelMaps,
    PngLabel,
    Segment,
    label_problems,
)
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import read_label_png
from deeplab2_edge.metrics.collection import (
    DEPTH_METRICS,
    VIDEO_METRICS,
    Frame,
    MetricReport,
    MetricSet,
    check_names,
)
from deeplab2_edge.metrics.official import OfficialWriter
from deeplab2_edge.metrics.video_panoptic_quality import VPQ_WINDOWS
from deeplab2_edge.progress import progress
from deeplab2_edge.wording import counted

# What data sets and programs append to the name of an image, longest first.
_SUFFIXES = (
    "_gtFine_instanceTrainIds",
    "_gtFine_labelTrainIds",
    "_gtFine_panoptic",
    "_leftImg8bit",
    "_panoptic",
)
_DEPTH_SUFFIX, _OVERLAY_SUFFIX, _RESULT_SUFFIX = "_depth", "_overlay", "_panoptic"
# Other pictures that `deeplab2-edge run --save` puts beside its results.
_PICTURE_SUFFIXES = ("_semantic", "_instances", "_depth_color", "_points", "_panel")
_PHOTO_SUFFIX = "_leftImg8bit"
_DEPTH_PER_METER = 256


@dataclass(frozen=True, eq=False)
class PanopticFile:
    """Holds one map that was read.

    Attributes:
        panoptic: `[H, W]` panoptic ids, crowds of COCO annotations as void.
        with_crowds: The same with these crowds as instance 0; None without crowds.
        scores: Score of each segment that has one.
    """

    panoptic: NDArray[np.int32]
    with_crowds: NDArray[np.int32] | None = None
    scores: Mapping[int, float] = field(default_factory=dict)


class MapFile(Protocol):
    """Is a map on disk, read when asked for."""

    @property
    def path(self) -> Path:
        """The PNG."""

    def read(self) -> PanopticFile:
        """Reads and checks it."""


@dataclass(frozen=True)
class MapFolder:
    """Is a folder of maps.

    Attributes:
        root: The folder or annotation file.
        maps: By name, a relative path without suffix, in natural order.
        depths: Depth PNGs by the same names.
        aliases: Other names of the maps: image ids, and where these are unique, file
            names without folders and `<sequence>/<frame>`.
        keeps_ids: Whether an instance may keep its id over frames.
    """

    root: Path
    maps: Mapping[str, MapFile]
    depths: Mapping[str, Path]
    aliases: Mapping[str, str]
    keeps_ids: bool

    def find(self, name: str, *, also: Sequence[str] = ()) -> str | None:
        """Returns the name here of what is called `name`, or otherwise, elsewhere."""
        for candidate in (name, *also):
            if candidate in self.maps:
                return candidate
            if candidate in self.aliases:
                return self.aliases[candidate]
        return None


def evaluate_folders(
    predictions: str | os.PathLike[str],
    groundtruth: str | os.PathLike[str],
    dataset: DatasetInfo | None = None,
    *,
    metrics: Sequence[str] = ("pq", "miou"),
    windows: Sequence[int] = VPQ_WINDOWS,
    limit: int | None = None,
    writer: OfficialWriter | None = None,
    quiet: bool = False,
) -> MetricReport:
    """Compares a folder of predicted maps with a folder of true ones.

    Every true map needs a prediction; predictions without a true map do not count.
    Videos are folders of frames, or files named `<sequence>_<frame>...`; if there is
    neither, all files are one video.

    Args:
        predictions: Folder in a layout of this module, or a COCO JSON file.
        groundtruth: Likewise.
        dataset: The classes; by default the `dataset.json` in one of the folders.
        metrics: Keys of `METRICS`.
        windows: Window sizes of VPQ and DVPQ.
        limit: At most so many images, the first ones.
        writer: Gets every prediction that was compared.
        quiet: Whether to show no progress.

    Raises:
        DataError: If there is nothing to compare, a prediction is missing, or a file
            is damaged or does not fit; the message names it.
        UsageError: If a metric is unknown or `limit` is not positive.
        ConfigError: If a `dataset.json` is wrong.
    """
    names = check_names(metrics)
    if limit is not None and limit < 1:
        raise UsageError(f"the number of images is {limit}; must be at least 1")
    info = dataset or _described(Path(groundtruth), Path(predictions))
    true = open_maps(groundtruth, info)
    predicted = open_maps(predictions, info)
    pairs = _pair(true, predicted)[:limit]
    wanted_videos = VIDEO_METRICS.intersection(names)
    for folder in (true, predicted):
        if wanted_videos and not folder.keeps_ids:
            raise DataError(
                f"{folder.root}: numbers the instances of each image anew, so "
                f"{min(wanted_videos)} cannot follow them; store maps of videos as "
                "label PNGs (R the class, 256 * G + B the instance)"
            )
    collected = MetricSet(info, names, windows=windows)
    wants_depth = bool(DEPTH_METRICS.intersection(names))
    label = str(predictions)
    for true_name, pred_name in progress(
        pairs, total=len(pairs), label=label, quiet=quiet
    ):
        true_map, pred_map = true.maps[true_name], predicted.maps[pred_name]
        read, answer = true_map.read(), pred_map.read()
        depths: tuple[NDArray[np.float32], ...] = ()
        if wants_depth:
            depths = _depth(true, true_name), _depth(predicted, pred_name)
        frame = Frame(
            groundtruth=read.panoptic,
            prediction=answer.panoptic,
            groundtruth_with_crowds=read.with_crowds,
            scores=answer.scores,
            sequence=video_of_name(true_name, true.root.name),
            depth_groundtruth=depths[0] if depths else None,
            depth_prediction=depths[1] if depths else None,
        )
        try:
            collected.update(frame)
        except DataError as error:
            raise DataError(f"{pred_map.path}: {error} ({true_map.path})") from error
        if writer is not None:
            writer.add(true_name, answer.panoptic, scores=answer.scores)
    return collected.report(label)


def convert_folder(
    predictions: str | os.PathLike[str], writer: OfficialWriter, *, quiet: bool = False
) -> int:
    """Writes a folder of predicted maps in the format of a benchmark.

    Returns:
        The number of images.

    Raises:
        DataError: If there are no maps, or a file is damaged or does not fit.
    """
    folder = open_maps(predictions, writer.info)
    for name, entry in progress(
        folder.maps.items(), total=len(folder.maps), label=str(predictions), quiet=quiet
    ):
        read = entry.read()
        writer.add(name, read.panoptic, scores=read.scores)
    return len(folder.maps)


def open_maps(root: str | os.PathLike[str], info: DatasetInfo) -> MapFolder:
    """Lists the maps of a folder; only COCO annotation files are read here.

    Args:
        root: Folder in a layout of this module, or a COCO JSON file.
        info: The classes.

    Raises:
        DataError: If there are no maps, or an annotation file is damaged.
    """
    root = Path(root)
    if root.is_file() and root.suffix == ".json":
        return _open_coco(root, info)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of panoptic maps, found {found}")
    annotation = find_annotation(root)
    if annotation is not None:
        return _open_coco(annotation, info)
    folder = root / "labels" if (root / "labels").is_dir() else root
    maps: dict[str, MapFile] = {}
    depths: dict[str, Path] = {}
    has_results = False
    for path in sorted(folder.rglob("*.png"), key=lambda p: _natural(p.as_posix())):
        relative = path.relative_to(folder).with_suffix("")
        if path.stem.endswith(_OVERLAY_SUFFIX) or _is_picture_of_result(path):
            continue
        if path.stem.endswith(_DEPTH_SUFFIX):
            depths[_image_name(relative.as_posix().removesuffix(_DEPTH_SUFFIX))] = path
            continue
        name = _image_name(relative.as_posix())
        if name in maps and path.stem.endswith(_PHOTO_SUFFIX):
            continue  # the photo beside its labels
        if name in maps and not maps[name].path.stem.endswith(_PHOTO_SUFFIX):
            raise DataError(
                f"{path}: and {maps[name].path.name} are maps of the same image; "
                "keep one of them in the folder"
            )
        stem = path.stem.removesuffix(_RESULT_SUFFIX)
        document = path.with_name(f"{stem}.json")
        if stem != path.stem and document.is_file():
            maps[name] = _ResultMap(path, document, info)
            has_results = True
        else:
            maps[name] = _PngMap(path, info)
    if not maps:
        raise DataError(
            f"{folder}: holds no panoptic maps; expected NAME.png files, or a COCO "
            "panoptic JSON with a folder of the same name"
        )
    return MapFolder(root, maps, depths, _base_names(maps), not has_results)


def _is_picture_of_result(path: Path) -> bool:
    """Says whether a picture is a drawing beside NAME.json and NAME_panoptic.png."""
    for suffix in _PICTURE_SUFFIXES:
        if path.stem.endswith(suffix):
            stem = path.stem.removesuffix(suffix)
            names = f"{stem}.json", f"{stem}{_RESULT_SUFFIX}.png"
            return all(path.with_name(name).is_file() for name in names)
    return False


@dataclass(frozen=True)
class _PngMap:
    path: Path
    info: DatasetInfo = field(repr=False)

    def read(self) -> PanopticFile:
        maps = PngLabel(self.path, self.info).read()
        return PanopticFile(_panoptic(maps, self.info, self.path))


@dataclass(frozen=True)
class _CocoMap:
    label: CocoLabel
    scores: Mapping[int, float]

    @property
    def path(self) -> Path:
        return self.label.path

    def read(self) -> PanopticFile:
        info = self.label.info
        panoptic = _panoptic(self.label.read(), info, self.path)
        crowds = [
            s.semantic * info.label_divisor
            for s in self.label.segments
            if s.instance == 0 and s.semantic in info.thing_ids
        ]
        if not crowds:
            return PanopticFile(panoptic, scores=self.scores)
        is_crowd = np.isin(panoptic, crowds)
        void = np.int32(info.ignored_panoptic_id)
        return PanopticFile(np.where(is_crowd, void, panoptic), panoptic, self.scores)


@dataclass(frozen=True)
class _ResultMap:
    """Is a result of `deeplab2-edge run`: the document names classes and scores."""

    path: Path
    document: Path
    info: DatasetInfo = field(repr=False)

    def read(self) -> PanopticFile:
        where = self.document
        document = read_object(where)
        divisor = whole(document, "label_divisor", where)
        if divisor < 1:
            raise DataError(f"{where}: `label_divisor` is 0; it must be at least 1")
        segments: list[Segment] = []
        scores: dict[int, float] = {}
        for number, item in enumerate(objects(document, "segments", where), start=1):
            class_id = whole(item, "class_id", where)
            instance = whole(item, "id", where) % divisor
            _check_class(item, class_id, self.info, where)
            segments.append(Segment(number, class_id, instance, None))
            _add_score(scores, item, class_id, instance, self.info, where)
        maps = CocoLabel(self.path, self.info, tuple(segments)).read()
        return PanopticFile(_panoptic(maps, self.info, self.path), scores=scores)


def _open_coco(annotation: Path, info: DatasetInfo) -> MapFolder:
    folder = annotation.with_suffix("")
    if not folder.is_dir():
        folder = annotation.parent
    document = read_object(annotation)
    classes = classes_of_categories(info, annotation)
    maps: dict[str, MapFile] = {}
    aliases: dict[str, str] = {}
    for entry in objects(document, "annotations", annotation):
        relative = relative_path(entry, annotation, folder=f"{annotation.stem}/")
        name = _image_name(relative.with_suffix("").as_posix())
        if name in maps:
            raise DataError(f"{annotation}: image {name!r} is annotated twice")
        maps[name] = _coco_map(entry, folder / relative, info, classes, annotation)
        if isinstance(entry.get("image_id"), int | str):
            aliases[str(entry["image_id"])] = name
    if not maps:
        raise DataError(f"{annotation}: `annotations` is empty")
    ordered = {name: maps[name] for name in sorted(maps, key=_natural)}
    return MapFolder(annotation, ordered, {}, {**_base_names(maps), **aliases}, False)


def _coco_map(
    entry: Mapping[str, Any],
    path: Path,
    info: DatasetInfo,
    classes: Mapping[int, int],
    where: Path,
) -> _CocoMap:
    """Numbers the instances of each class 1, 2, ... in the order of the list."""
    counts: dict[int, int] = {}
    scores: dict[int, float] = {}
    segments = []
    for item in objects(entry, "segments_info", where):
        segment_id = whole(item, "id", where)
        category = whole(item, "category_id", where)
        if category not in classes:
            raise DataError(
                f"{where}: {path.name}: segment {segment_id} has category_id "
                f"{category}, which data set {info.name!r} does not know; known are "
                f"{', '.join(map(str, list(classes)[:8]))}, ..."
            )
        class_id, instance = classes[category], 0
        if class_id in info.thing_ids and not item.get("iscrowd", 0):
            instance = counts[class_id] = counts.get(class_id, 0) + 1
        segments.append(Segment(segment_id, class_id, instance, None))
        _add_score(scores, item, class_id, instance, info, where)
    if len({segment.id for segment in segments}) < len(segments):
        raise DataError(f"{where}: {path.name}: a segment id is listed twice")
    return _CocoMap(CocoLabel(path, info, tuple(segments)), scores)


def _add_score(
    scores: dict[int, float],
    item: Mapping[str, Any],
    class_id: int,
    instance: int,
    info: DatasetInfo,
    where: Path,
) -> None:
    score = item.get("score")
    if score is None:
        return
    if type(score) not in (int, float):
        raise DataError(f"{where}: `score` must be a number, found {score!r}")
    scores[class_id * info.label_divisor + instance] = float(score)


def _check_class(
    item: Mapping[str, Any], class_id: int, info: DatasetInfo, where: Path
) -> None:
    name = item.get("class_name")
    if class_id >= info.num_classes or name not in (None, info.class_names[class_id]):
        expected = (
            info.class_names[class_id]
            if class_id < info.num_classes
            else f"0 to {info.num_classes - 1}"
        )
        raise DataError(
            f"{where}: class {class_id} is {name!r} there and {expected!r} in data "
            f"set {info.name!r}; name the right data set"
        )


def _panoptic(maps: LabelMaps, info: DatasetInfo, path: Path) -> NDArray[np.int32]:
    problems = label_problems(maps, info)
    if problems:
        raise DataError(f"{path}: {problems[0]}")
    return maps.semantic * np.int32(info.label_divisor) + maps.instance


def _depth(folder: MapFolder, name: str) -> NDArray[np.float32]:
    path = folder.depths.get(name)
    if path is None:
        raise DataError(
            f"{folder.maps[name].path}: has no depth; expected "
            f"{PurePosixPath(name).name}{_DEPTH_SUFFIX}.png beside it"
        )
    stored = read_label_png(path)
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise DataError(
            f"{path}: depth must be a 16-bit grey PNG ({_DEPTH_PER_METER} per meter), "
            f"found {stored.dtype} of shape {stored.shape}"
        )
    return stored.astype(np.float32) / np.float32(_DEPTH_PER_METER)


def _pair(true: MapFolder, predicted: MapFolder) -> list[tuple[str, str]]:
    """Finds the prediction of every true map."""
    true_aliases: dict[str, list[str]] = {}
    for alias, name in true.aliases.items():
        true_aliases.setdefault(name, []).append(alias)
    pairs, missing = [], []
    for name in true.maps:
        found = predicted.find(name, also=true_aliases.get(name, ()))
        if found is None:
            missing.append(name)
        else:
            pairs.append((name, found))
    if missing:
        raise DataError(
            f"{predicted.root}: {counted(len(missing), 'prediction')} of "
            f"{len(true.maps)} missing, the first for {missing[0]!r} "
            f"({true.maps[missing[0]].path}); names of predictions must be those of "
            f"the ground truth, here they are like {next(iter(predicted.maps))!r}"
        )
    if len({found for _, found in pairs}) < len(pairs):
        raise DataError(
            f"{predicted.root}: several true maps share a prediction; keep the "
            "folders of the ground truth in the names of the predictions"
        )
    return pairs


def _described(*roots: Path) -> DatasetInfo:
    for root in roots:
        for folder in (root, root.parent):
            if (folder / DESCRIPTION_NAME).is_file():
                return load_description(folder / DESCRIPTION_NAME)
    raise UsageError(
        f"{roots[0]}: the classes are unknown; name the data set (--dataset), or put "
        f"its {DESCRIPTION_NAME} into the folder"
    )


def _image_name(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _base_names(maps: Mapping[str, MapFile]) -> dict[str, str]:
    """Maps other names to names, where they are unique.

    The file without its folders, and a frame of a video as `<sequence>/<frame>`,
    whether it lies in a folder or its file begins with `<sequence>_<frame>`.
    """
    found: dict[str, set[str]] = {}
    for name in maps:
        folder, _, base = name.rpartition("/")
        found.setdefault(base, set()).add(name)
        sequence, frame = frame_of_name(base) or (PurePosixPath(folder).name, base)
        if sequence:
            found.setdefault(f"{sequence}/{frame}", set()).add(name)
    return {other: min(names) for other, names in found.items() if len(names) == 1}


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers by value: frame 2 before frame 10."""
    parts = re.split(r"(\d+)", text)
    return [(int(p) if p.isdecimal() else -1, p) for p in parts]
