"""`deeplab2-edge run`: segment images, folders, videos and cameras."""

import argparse
import json
import os
import sys
import threading
from typing import Any

from deeplab2_edge.cli.arguments import add_command, parse_size
from deeplab2_edge.cli.drawing import add_drawing_options
from deeplab2_edge.cli.engine_options import add_engine_options, add_threads_option
from deeplab2_edge.cli.run_model import open_model
from deeplab2_edge.cli.run_outputs import Outputs, add_output_options, take_coco
from deeplab2_edge.cli.signals import StopSignals
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.wording import counted

_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem

_EPILOG = """\
Writes for each image NAME_overlay.png, NAME_panoptic.png (COCO panoptic format) and
NAME.json; for each video, camera or stream NAME_overlay.mp4 and NAME.jsonl with one
line per frame; with --save also other pictures, depth and point clouds (PLY), and with
coco one data set of all: panoptic/ and panoptic.json. What a run has done is kept,
whatever ends it. Exit code: 0, 2 if an input could not be read, 130 after Ctrl-C, 143
after SIGTERM.

Motion-DeepLab and ViP-DeepLab follow instances from frame to frame: through a video,
or through the images of a folder, which are taken as its frames in the order of their
names. With --track, other models do so too. Equal ids are then the same thing.

With --json, standard output is one document with `model`, `engine`, `results`,
`failures` and `summary`; files are then written only if --output is given.

examples:
  deeplab2-edge run model.tflite photo.jpg
  deeplab2-edge run model.tflite photos/ more.png --output results/
  deeplab2-edge run model.tflite drive.mp4 --limit 300 --track --save instances
  deeplab2-edge run model.tflite 0 --camera-size 480x640 --serve 8765
  deeplab2-edge run model.tflite rtsp://10.0.0.7/live --show
  ffmpeg -i x.mp4 -f image2pipe -c:v mjpeg - | deeplab2-edge run model.tflite -
  deeplab2-edge run model.tflite photo.jpg --json | jq '.results[0].segments'
  deeplab2-edge run model.tflite photos/ --save coco
  deeplab2-edge run runs/vip frames/ --save overlay,depth,point-cloud --fov 70
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        subparsers,
        "run",
        help="segment images, folders, videos or a camera",
        description="Segments images with a converted model, without TensorFlow, or "
        "with a checkpoint of any architecture.",
        examples=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a file made by `deeplab2-edge convert`, a checkpoint (folder of "
        "a run, prefix, .tar.gz), or `demo`",
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="image, folder of images, video, camera (0, /dev/video0, picamera), "
        "rtsp:// or http:// address, or - for frames on the standard input",
    )
    add_output_options(parser)
    parser.add_argument(
        "--no-overlay", action="store_true", help="do not draw pictures or videos"
    )
    add_drawing_options(parser)
    parser.add_argument(
        "--track",
        action="store_true",
        help="instances of videos and folders keep their ids; of models of one image",
    )
    parser.add_argument(
        "--config",
        help="experiment of a checkpoint, or the name of a shipped recipe; default: "
        "config.textproto beside it",
    )
    parser.add_argument(
        "--input-size",
        type=parse_size,
        metavar="HxW",
        help="canvas of a checkpoint; default: its evaluation crop",
    )
    add_threads_option(parser)
    add_engine_options(parser)
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="run the model in a process of its own with bounded memory and time: for "
        "model files from strangers",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="stop after N images and frames"
    )
    parser.add_argument(
        "--camera-size",
        type=parse_size,
        metavar="HxW",
        help="that a camera shall give; default: its own choice",
    )
    parser.add_argument(
        "--fps",
        type=float,
        metavar="N",
        help="that a camera shall give, or that the frames of - have",
    )
    parser.add_argument(
        "--raw-size",
        type=parse_size,
        metavar="HxW",
        help="of raw frames on the standard input; without, it holds JPEG or PNG "
        "images one after the other",
    )
    parser.add_argument(
        "--raw-format",
        choices=("rgb24", "bgr24", "yuv420p", "nv12", "gray8"),
        help="of raw frames, as FFmpeg calls them",
    )
    parser.add_argument(
        "--latency-budget",
        type=float,
        metavar="MS",
        help="of cameras, live streams and -: when a frame has waited longer for the "
        "network, the newest is taken and the others are skipped (100; - skips none "
        "without it)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segments everything; returns 2 if some inputs could not be read."""
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is {args.limit}; it must be at least 1")
    with StopSignals() as signals:
        try:
            code = _run(args, signals)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = signals.exit_code
        except Exception as error:
            if _tells_of_full_memory(error):
                raise DataError(
                    "the memory is full: give smaller images, a model with a smaller "
                    "canvas, or fewer programs beside this one"
                ) from None
            raise
        if signals.is_received:
            _leave_threads(code)
        return code


def _run(args: argparse.Namespace, signals: StopSignals) -> int:
    from deeplab2_edge.cli.run_job import Job, check_budget
    from deeplab2_edge.runtime.sources import SourceOptions, open_sources
    from deeplab2_edge.runtime.views import Artist

    wanted = SourceOptions(
        camera_size=args.camera_size,
        fps=args.fps,
        raw_size=args.raw_size,
        raw_format=args.raw_format,
    )
    sources = open_sources(args.inputs, wanted)
    check_budget(args.latency_budget, sources)
    has_coco, args.save = take_coco(args.save)
    if has_coco and not args.save:
        args.save, args.no_overlay = None, True
    model = open_model(args)
    outputs = Outputs(
        args,
        model.options.kinds,
        has_coco=has_coco,
        waits=all(source.kind == "image" for source in sources),
        should_stop=lambda: signals.is_received,
    )
    artist = Artist(model.options) if outputs.wants_pictures else None
    job = Job(
        model,
        artist,
        outputs,
        signals,
        limit=args.limit,
        budget_ms=args.latency_budget,
        keep=args.json,
    )
    with signals.deferred():
        job.run(sources, quiet=args.quiet)
    if signals.is_received:
        frames = counted(job.count, "image")
        is_kept = args.json or outputs.folder is not None
        what = f": the results of {frames} are kept" if is_kept else f" after {frames}"
        print(f"interrupted{what}", file=sys.stderr)
    if args.json:
        print(json.dumps(job.document(), indent=1))
    else:
        job.print_summary()
    if signals.is_received:
        return signals.exit_code
    return 2 if job.failures else 0


def _tells_of_full_memory(error: Exception) -> bool:
    is_of_opencv = type(error).__module__ == "cv2"
    return isinstance(error, MemoryError) or (
        is_of_opencv and getattr(error, "code", 0) == _OPENCV_NO_MEMORY
    )


def _leave_threads(code: int) -> None:
    """Ends the process if a thread is still within a read or a network.

    The interpreter's own end would take it down in the middle of C++ code, which may
    answer with an abort.
    """
    if any(t.name.startswith("deeplab2-edge") for t in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
