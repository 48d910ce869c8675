"""`deeplab2-edge data`: render, build, check, show and serve data sets."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeplab2_edge.cli import data_show
from deeplab2_edge.cli.arguments import add_command, parse_size
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.wording import counted

_EXAMPLES = """\
examples:
  deeplab2-edge data synth --output synth/ --num 2000 --split train --shards 8
  deeplab2-edge data build --input street/train --dataset camvid --output records/
  deeplab2-edge data build --dataset coco_panoptic --root coco/ --output records/
  deeplab2-edge data check street/train --dataset camvid
  deeplab2-edge data show street/train --dataset camvid --output look/
"""

_SYNTH_EXAMPLES = """\
examples:
  deeplab2-edge data synth --output synth/ --num 2000 --split train --shards 8
  deeplab2-edge data synth --output synth/ --num 200 --split val
  deeplab2-edge data synth --output look/ --num 5 --format folder --size 513x1025
  deeplab2-edge data synth --output video/ --num 10 --video-frames 6
  deeplab2-edge data synth --output motion/ --num 250 --video-frames 6 --two-frames
  deeplab2-edge data synth --output vip/ --num 250 --video-frames 6 --next-frame

A video record holds the frame before, the frame after and the depth; --two-frames and
--next-frame leave out what the one or the other system does not read.

Every scene follows from its number alone, so the same command draws the same
pictures. Scenes of `train` and `val` never overlap.
"""

_BUILD_EXAMPLES = """\
examples:
  deeplab2-edge data build --input street/train --dataset camvid --output records/
  deeplab2-edge data build --input my/val --dataset my/dataset.json \\
      --output records/ --split val --shards 4 --workers 4
  deeplab2-edge data build --dataset cityscapes_panoptic --root cityscapes/ \\
      --split val --output records/
  deeplab2-edge data build --dataset kitti_step --root kitti-step/ --two-frames \\
      --split train --output records/

With --root, the folder lies as the authors of the data set publish it: Cityscapes,
COCO, ADE20K, KITTI-STEP, MOTChallenge-STEP, Cityscapes-DVPS, SemKITTI-DVPS. With
--input, it is your own.

A build that was interrupted continues when the same command is given again.
"""

_MAPS_EXAMPLES = """\
examples:
  deeplab2-edge data step-maps --dataset kitti_step --semantic semantic/train \\
      --instances instances/train --output kitti-step/panoptic_maps/train

Both folders hold <sequence>/<frame>.png. The class maps are 8-bit gray with train
ids, the instance maps 16-bit gray with MOTS class * 1000 + id (1 car, 2 person).
"""

_CHECK_EXAMPLES = """\
examples:
  deeplab2-edge data check street/train --dataset camvid
  deeplab2-edge data check records/
  deeplab2-edge data check my/train --json | jq .problems

Exit code: 0 when all is well, 1 when there are problems, 2 when nothing could be
checked.
"""

_SERVE_EXAMPLES = """\
examples:
  deeplab2-edge data serve --port 5000
  deeplab2-edge data serve --port 5000 --host 10.0.0.7

Runs until it is ended. The record files must lie here under the paths that the
experiment names.
"""

_MAX_SIDE = 8193
_SEEDS_PER_SPLIT = 1_000_000
_DEFAULT_SHARDS = 10


def add_parser(subparsers: Any) -> None:
    """Adds `data` and its actions."""
    help_text = "render, build, check, show and serve data sets"
    parser = _parser(subparsers, "data", help_text, None, _EXAMPLES)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_synth(actions)
    _add_build(actions)
    _add_step_maps(actions)
    _add_check(actions)
    data_show.add_action(actions)
    _add_serve(actions)


def run(args: argparse.Namespace) -> int:
    """Runs the action that was named."""
    action: Callable[[argparse.Namespace], int] = args.run_action
    return action(args)


def _parser(
    subparsers: Any, name: str, help_text: str, action: Any, examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = add_command(
        subparsers,
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        examples=examples,
    )
    parser.set_defaults(run=run, run_action=action)
    return parser


def _add_output_options(
    parser: argparse.ArgumentParser, default_shards: str = "10"
) -> None:
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder of results; made if new"
    )
    parser.add_argument(
        "--split", default="train", help="first part of the file names (train)"
    )
    parser.add_argument(
        "--shards",
        type=int,
        metavar="K",
        help=f"record files ({default_shards})",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="W",
        help="processes (all cores)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace records of another job"
    )
    _add_reporting_options(parser)


def _add_reporting_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _add_synth(actions: Any) -> None:
    parser = _parser(
        actions,
        "synth",
        "render street scenes with exact labels",
        _run_synth,
        _SYNTH_EXAMPLES,
    )
    parser.add_argument(
        "--num", type=int, required=True, metavar="N", help="scenes, or videos"
    )
    parser.add_argument(
        "--size", type=_size, default=(257, 513), metavar="HxW", help="(257x513)"
    )
    parser.add_argument(
        "--format",
        choices=("records", "folder", "both"),
        default="records",
        help="record files, image files in COCO panoptic layout, or both (records)",
    )
    parser.add_argument(
        "--video-frames",
        type=int,
        default=0,
        metavar="T",
        help="render videos of T frames, with neighbors and depth in the records",
    )
    neighbors = parser.add_mutually_exclusive_group()
    neighbors.add_argument(
        "--two-frames",
        action="store_const",
        const="previous",
        dest="neighbors",
        help="T records a video, of a frame and the one before (Motion-DeepLab)",
    )
    neighbors.add_argument(
        "--next-frame",
        action="store_const",
        const="next",
        dest="neighbors",
        help="T - 1 records a video, of a frame, its depth and the one after "
        "(ViP-DeepLab)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="first scene of the split (0)"
    )
    _add_output_options(parser)


def _add_build(actions: Any) -> None:
    parser = _parser(
        actions,
        "build",
        "write record files from a published data set or your own folder",
        _run_build,
        _BUILD_EXAMPLES,
    )
    places = parser.add_mutually_exclusive_group(required=True)
    places.add_argument("--input", metavar="FOLDER", help="your images with labels")
    places.add_argument(
        "--root", metavar="DIR", help="the data set --dataset, as it was unpacked"
    )
    _add_dataset_option(parser)
    parser.add_argument(
        "--two-frames",
        action="store_true",
        help="STEP: with the frame before, as Motion-DeepLab needs it",
    )
    parser.add_argument(
        "--keep-crowd",
        action="store_true",
        help="Cityscapes, COCO, ADE20K: crowds keep their class (they are ignored)",
    )
    parser.add_argument(
        "--semantic-only",
        action="store_true",
        help="Cityscapes: classes without instances, of *_gtFine_labelTrainIds.png",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="fewer images than the published split has are fine",
    )
    parser.add_argument(
        "--allow-unlabeled",
        action="store_true",
        help="write records of images without labels, for example to calibrate with",
    )
    _add_output_options(parser, "as published; 10 for your own")


def _add_step_maps(actions: Any) -> None:
    parser = _parser(
        actions,
        "step-maps",
        "merge class and instance maps into the panoptic maps of STEP",
        _run_step_maps,
        _MAPS_EXAMPLES,
    )
    parser.add_argument(
        "--dataset", required=True, choices=("kitti_step", "motchallenge_step")
    )
    parser.add_argument(
        "--semantic", required=True, metavar="DIR", help="folder of class maps"
    )
    parser.add_argument(
        "--instances", required=True, metavar="DIR", help="folder of MOTS instance maps"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder of results; made if new"
    )
    parser.add_argument(
        "--kernel",
        type=int,
        default=15,
        metavar="K",
        help="pixels of the class that near an instance become void (15)",
    )
    _add_reporting_options(parser)


def _add_check(actions: Any) -> None:
    parser = _parser(
        actions,
        "check",
        "look for problems in a folder or in record files",
        _run_check,
        _CHECK_EXAMPLES,
    )
    parser.add_argument(
        "path", metavar="FOLDER|RECORDS", help="data folder, record folder or file"
    )
    _add_dataset_option(parser)
    _add_reporting_options(parser)


def _add_dataset_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        metavar="NAME|JSON",
        help="registered name or description file "
        "(dataset.json in the folder, or the categories of a COCO file)",
    )


def _size(text: str) -> tuple[int, int]:
    size = parse_size(text)
    if not all(33 <= side <= _MAX_SIDE for side in size):
        raise argparse.ArgumentTypeError(f"{text!r}: sides must be 33 to {_MAX_SIDE}")
    return size


def _run_synth(args: argparse.Namespace) -> int:
    if args.split not in ("train", "val"):
        raise UsageError(f"--split {args.split!r}: rendered scenes are train or val")
    if args.num < 1 or args.seed < 0 or args.seed + args.num > _SEEDS_PER_SPLIT:
        raise UsageError(
            f"--seed {args.seed} --num {args.num}: need at least one scene, numbered "
            f"from 0 to {_SEEDS_PER_SPLIT - 1}"
        )
    if args.video_frames < 0 or args.video_frames == 1:
        raise UsageError(f"--video-frames {args.video_frames}: must be 2 or more")
    if args.neighbors and (not args.video_frames or args.format == "folder"):
        raise UsageError(
            "--two-frames and --next-frame say what records of videos hold: they need "
            "--video-frames, and no --format folder"
        )
    _check_counts(args)
    from deeplab2_edge.train.data import builders

    first = args.seed + (_SEEDS_PER_SPLIT if args.split == "val" else 0)
    seeds = range(first, first + args.num)
    report: dict[str, Any] = {}
    if args.format in ("records", "both"):
        source: Any = builders.SceneSource(seeds, args.size)
        if args.video_frames:
            source = builders.VideoSource(
                seeds, args.video_frames, args.size, args.neighbors or "both"
            )
        report["records"] = _build(source, args)
    if args.format in ("folder", "both"):
        folder = os.path.join(args.output, args.split)
        num_images = builders.write_scene_folder(
            folder,
            seeds,
            size=args.size,
            num_frames=args.video_frames,
            workers=args.workers,
            quiet=args.quiet,
        )
        report["folder"] = {"path": folder, "num_images": num_images}
    _print_report(report, args.json)
    return 0


def _run_build(args: argparse.Namespace) -> int:
    _check_counts(args)
    if args.root is not None:
        return _run_build_published(args)
    for option in ("two_frames", "keep_crowd", "semantic_only", "partial"):
        if getattr(args, option):
            word = option.replace("_", "-")
            raise UsageError(
                f"--{word} goes with --root, a data set laid out as published"
            )
    from deeplab2_edge.datasets.folders import open_folder
    from deeplab2_edge.datasets.registry import get_dataset

    info = get_dataset(args.dataset) if args.dataset else None
    folder = open_folder(args.input, info)
    if not folder.is_labelled and not args.allow_unlabeled:
        raise DataError(
            f"{args.input}: holds images and no label at all, so nothing can be "
            "trained on it; put labels beside the images (`deeplab2-edge data check` "
            "helps), or give --allow-unlabeled to write the images alone"
        )
    from deeplab2_edge.train.data import builders

    source = builders.FolderSource(folder)
    _print_report({"records": _build(source, args)}, args.json)
    return 0


def _run_build_published(args: argparse.Namespace) -> int:
    if not args.dataset:
        raise UsageError("--root needs --dataset, the name of what lies there")
    from deeplab2_edge.train.data import builders

    options = builders.LayoutOptions(
        two_frames=args.two_frames,
        keeps_crowd=args.keep_crowd,
        semantic_only=args.semantic_only,
        allows_unlabelled=args.allow_unlabeled,
    )
    opened = builders.open_split(
        args.dataset,
        Path(args.root),
        args.split,
        options,
        num_shards=args.shards,
        is_partial=args.partial,
    )
    for note in opened.notes:
        print(f"note: {note}", file=sys.stderr)
    report = _build(opened.source, args, opened.slices)
    report["num_expected"] = opened.num_expected
    _print_report({"records": report}, args.json)
    return 0


def _run_step_maps(args: argparse.Namespace) -> int:
    from deeplab2_edge.datasets.step_maps import write_step_maps

    count = write_step_maps(
        args.semantic,
        args.instances,
        args.output,
        dataset=args.dataset,
        kernel_size=args.kernel,
        quiet=args.quiet,
    )
    if args.json:
        print(json.dumps({"num_maps": count, "output_dir": args.output}))
    else:
        print(f"{counted(count, 'panoptic map')}: {args.output}")
    return 0


def _add_serve(actions: Any) -> None:
    parser = _parser(
        actions,
        "serve",
        "make training samples for other machines",
        _run_serve,
        _SERVE_EXAMPLES,
    )
    parser.add_argument(
        "--port",
        type=int,
        default=5000,
        metavar="P",
        help="trainings ask at P, samples come from P + 1 (5000)",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="name or address under which trainings reach this machine (its host name)",
    )


def _run_serve(args: argparse.Namespace) -> int:
    import socket

    from deeplab2_edge.train.data.service import SampleServer

    server = SampleServer(args.host or socket.gethostname(), args.port)
    print(f"serving: train with --data-service {server.address}", flush=True)
    server.join()
    return 0


def _run_check(args: argparse.Namespace) -> int:
    from deeplab2_edge.datasets.check import check_folder, format_report
    from deeplab2_edge.datasets.registry import get_dataset

    info = get_dataset(args.dataset) if args.dataset else None
    if _holds_records(Path(args.path)):
        from deeplab2_edge.records import check_records

        report = check_records(args.path, info, quiet=args.quiet)
    else:
        report = check_folder(args.path, info, quiet=args.quiet)
    if args.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        print(format_report(report))
    return 0 if report.is_clean else 1


def _holds_records(path: Path) -> bool:
    is_record_folder = path.is_dir() and any(path.glob("*.tfrecord"))
    return is_record_folder or path.name.endswith(".tfrecord")


def _check_counts(args: argparse.Namespace) -> None:
    if (args.shards is not None and args.shards < 1) or args.workers < 1:
        raise UsageError(
            f"--shards {args.shards} --workers {args.workers}: must be 1 or more"
        )


def _build(source: Any, args: argparse.Namespace, slices: Any = None) -> dict[str, Any]:
    from dataclasses import asdict

    from deeplab2_edge.train.data.builders import build_records

    summary = build_records(
        source,
        args.output,
        args.split,
        num_shards=args.shards or _DEFAULT_SHARDS,
        slices=slices,
        workers=args.workers,
        overwrite=args.overwrite,
        quiet=args.quiet,
    )
    return asdict(summary)


def _print_report(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report, indent=1))
        return
    from deeplab2_edge.progress import format_seconds

    if records := report.get("records"):
        kept = f" ({records['num_kept']} kept)" if records["num_kept"] else ""
        print(
            f"{counted(records['num_records'], records['split'] + ' record')} in "
            f"{counted(records['num_shards'], 'shard')}{kept}, "
            f"{records['size_bytes'] / 1e6:.1f} MB, "
            f"{format_seconds(records['seconds'])}: {records['output_dir']}"
        )
        print(
            f"sha256 {records['checksum'][:16]}, of each shard: {records['manifest']}"
        )
    if folder := report.get("folder"):
        images = counted(folder["num_images"], "image")
        print(f"{images} with labels: {folder['path']}")
