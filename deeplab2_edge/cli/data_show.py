"""`deeplab2-edge data show`: draw the labels of a data set."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command
from deeplab2_edge.cli.drawing import add_drawing_options, read_drawing_options
from deeplab2_edge.errors import DataError
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.datasets.folders import SampleLike
    from deeplab2_edge.datasets.info import DatasetInfo
    from deeplab2_edge.runtime.results import PanopticResult
    from deeplab2_edge.runtime.views import ViewOptions
    from deeplab2_edge.samples import SampleSet

_DEFAULT_LIMIT = 12

_EXAMPLES = """\
examples:
  deeplab2-edge data show street/train --dataset camvid --output look/
  deeplab2-edge data show 'records/val-*.tfrecord' --output look/ --limit 40
  deeplab2-edge data show records/ --output look/ --first --save instances
  deeplab2-edge data show synthetic --output look/ --save panel

Look at these pictures before you train: whether the labels lie on the images, whether
each instance has a color of its own (--save instances) and whether it keeps that color
from frame to frame (--first), whether depth is in meters (--save depth). Pixels without
a label show the image.
"""


def add_action(actions: Any) -> None:
    """Adds the action to the parser of `data`."""
    parser = add_command(
        actions,
        "show",
        help="draw the labels of a folder or of record files",
        description="Draws labels over their images, as results are drawn.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "path",
        metavar="FOLDER|RECORDS",
        help="data folder, record folder, file or pattern, or `synthetic`",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder of pictures"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME|JSON",
        help="registered name or description file, if the data does not tell",
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=_DEFAULT_LIMIT,
        metavar="N",
        help=f"at most N images, spread evenly over all ({_DEFAULT_LIMIT})",
    )
    parser.add_argument(
        "--first", action="store_true", help="the first N images, as for videos"
    )
    add_drawing_options(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draws; returns 2 if some samples could not be drawn."""
    from deeplab2_edge.datasets.registry import get_dataset
    from deeplab2_edge.files import ensure_output_dir
    from deeplab2_edge.progress import progress
    from deeplab2_edge.runtime.views import Artist, save_drawn
    from deeplab2_edge.samples import open_samples

    dataset = get_dataset(args.dataset) if args.dataset else None
    data = open_samples(args.path, dataset, limit=args.limit, from_start=args.first)
    options = _options(args, data)
    folder = ensure_output_dir(args.output)
    artist = Artist(options)
    images: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    samples = data.samples
    is_camera_given = args.camera is not None or args.fov is not None
    for sample in progress(
        samples, total=len(samples), label="drawing", quiet=args.quiet
    ):
        try:
            drawn = artist.draw(
                _labels_of(sample, data.info),
                camera=None if is_camera_given else _camera_of(sample),
            )
        except DataError as error:
            if len(samples) == 1:
                raise
            print(f"deeplab2-edge data show: {error}", file=sys.stderr)
            failures.append({"sample": sample.name, "error": str(error)})
            continue
        paths = save_drawn(folder, _stem(sample), drawn)
        files = {kind: str(path) for kind, path in paths.items()}
        images.append({"sample": sample.name, "files": files})
    if args.json:
        document = {"images": images, "failures": failures, "output": str(folder)}
        print(json.dumps(document, indent=1))
    else:
        print(f"{counted(len(images), 'image')} drawn: {folder}")
        if failures:
            print(f"{len(failures)} could not be drawn, see above")
    return 2 if failures else 0


def _options(args: argparse.Namespace, data: "SampleSet") -> "ViewOptions":
    """Finds out what to draw by looking at the first sample that has a label."""
    first = next((s for s in data.samples if _has_label(s)), None)
    if first is None:
        raise DataError(
            f"{args.path}: the images have no labels, so there is nothing to draw; see "
            "`deeplab2-edge data check`, and `deeplab2-edge run` for predictions"
        )
    return read_drawing_options(
        args,
        has_instances=bool(data.info.thing_ids),
        has_depth=_depth_of(first) is not None,
        source=str(args.path),
    )


def _has_label(sample: "SampleLike") -> bool:
    try:
        return sample.load_panoptic() is not None
    except DataError:
        return True  # it has one, which is wrong: drawing says how


def _labels_of(sample: "SampleLike", info: "DatasetInfo") -> "PanopticResult":
    """Makes a result of what is true."""
    import numpy as np

    from deeplab2_edge.runtime.results import result_from_maps

    panoptic = sample.load_panoptic()
    if panoptic is None:
        raise DataError(f"{sample.name}: this image has no label")
    found = np.unique(panoptic // info.label_divisor)
    wrong = [c for c in found.tolist() if c >= info.num_classes]
    wrong = [c for c in wrong if c != info.ignore_label]
    if wrong or found[0] < 0:
        raise DataError(
            f"{sample.name}: the label holds class {(wrong or found.tolist())[0]}; "
            f"{info.name} has 0 to {info.num_classes - 1} and {info.ignore_label} for "
            "pixels without a class: name the right data set with --dataset"
        )
    try:
        return result_from_maps(
            sample.load_image(), panoptic, info, depth=_depth_of(sample)
        )
    except DataError as error:
        if str(error).startswith(sample.name):
            raise
        raise DataError(f"{sample.name}: {error}") from error


def _depth_of(sample: "SampleLike") -> Any:
    from deeplab2_edge.samples import RecordSample
    from deeplab2_edge.synth.dataset import SynthSample

    if isinstance(sample, RecordSample):
        return sample.load_depth()
    return sample.load_scene().depth if isinstance(sample, SynthSample) else None


def _camera_of(sample: "SampleLike") -> Any:
    """Gives the camera of a rendered scene, which is known."""
    from deeplab2_edge.runtime.point_cloud import Camera, Intrinsics
    from deeplab2_edge.synth.dataset import SynthSample

    if not isinstance(sample, SynthSample):
        return None
    (fx, _, cx), (_, fy, cy), _ = sample.load_scene().intrinsics.tolist()
    return Camera(Intrinsics(fx, fy, cx, cy))


def _stem(sample: "SampleLike") -> str:
    """Gives the start of the file names of a sample."""
    from deeplab2_edge.samples import RecordSample

    if isinstance(sample, RecordSample):
        number = sample.name.rpartition(" ")[2]
        return f"{Path(sample.path).stem}_{number:0>5}"
    return sample.name.replace("/", "_")
