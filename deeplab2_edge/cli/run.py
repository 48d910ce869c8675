"""`deeplab2-edge run`: segment images, folders, videos and cameras."""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command, check_size, parse_size
from deeplab2_edge.cli.drawing import add_drawing_options, read_drawing_options
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.progress import format_seconds, progress
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.runtime.clips import ClipSegmenter
    from deeplab2_edge.runtime.results import PanopticResult
    from deeplab2_edge.runtime.sources import Frame, Source
    from deeplab2_edge.runtime.views import Artist, Drawn, ViewOptions

_DEFAULT_OUTPUT = "results"

_EPILOG = """\
Writes for each image NAME_overlay.png, NAME_panoptic.png (COCO panoptic format) and
NAME.json; for each video or camera NAME_overlay.mp4 and NAME.jsonl with one line per
frame; with --save also other pictures, depth and point clouds (PLY). A camera runs
until Ctrl-C or --limit.

Motion-DeepLab and ViP-DeepLab follow instances from frame to frame: through a video,
or through the images of a folder, which are taken as its frames in the order of their
names. With --track, other models do so by overlap. Equal ids are then the same thing.

With --json, standard output is one document with `model`, `results`, `failures` and
`summary`; files are then written only if --output is given.

examples:
  deeplab2-edge run model.tflite photo.jpg
  deeplab2-edge run model.tflite photos/ more.png --output results/
  deeplab2-edge run model.tflite drive.mp4 --limit 300 --track --save instances
  deeplab2-edge run model.tflite 0 --limit 100
  deeplab2-edge run model.tflite photo.jpg --json | jq '.results[0].segments'
  deeplab2-edge run runs/max photos/ --save panel
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
        help="image, folder of images, video, or camera index",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"folder for results (default: {_DEFAULT_OUTPUT})",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )
    parser.add_argument(
        "--no-overlay", action="store_true", help="do not draw pictures or videos"
    )
    add_drawing_options(parser)
    parser.add_argument(
        "--track",
        action="store_true",
        help="instances of videos and folders keep their ids, by their overlap",
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
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the interpreter (default: the usable cores, at most 4)",
    )
    parser.add_argument(
        "--delegate", metavar="LIB", help="external delegate, e.g. libedgetpu.so.1"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="stop after N images and frames"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Segments everything; returns 2 if some inputs could not be read."""
    from deeplab2_edge.runtime.sources import open_sources
    from deeplab2_edge.runtime.views import Artist

    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is {args.limit}; it must be at least 1")
    sources = open_sources(args.inputs)
    is_file = _is_model_file(args.model)
    segmenter, options = (_open_file if is_file else _open_checkpoint)(args)
    folder = None
    if args.output is not None or not args.json:
        folder = ensure_output_dir(args.output or _DEFAULT_OUTPUT)
    artist = Artist(options) if options.kinds and folder is not None else None
    job = _Job(segmenter, folder, artist, keep=args.json)
    job.run(sources, limit=args.limit, quiet=args.quiet)
    if args.json:
        print(json.dumps(job.document(), indent=1))
    else:
        job.print_summary()
    return 2 if job.failures else 0


def _is_model_file(model: str) -> bool:
    """Tells model files from what else may be a checkpoint."""
    path = Path(model)
    is_checkpoint_file = ".data-" in path.name or path.name.endswith(
        (".index", ".tar", ".gz", ".tgz", ".zip")
    )
    return path.suffix in (".tflite", ".onnx") or (
        path.is_file() and not is_checkpoint_file
    )


def _open_file(args: argparse.Namespace) -> "tuple[ClipSegmenter, ViewOptions]":
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter

    if args.config or args.input_size:
        raise UsageError(
            "--config and --input-size belong to checkpoints; a converted file "
            "carries its own settings: leave them out"
        )
    segmenter = PanopticSegmenter(
        args.model, num_threads=args.threads, delegate=args.delegate
    )
    metadata = segmenter.metadata
    options = _drawing(
        args, has_instances=metadata.has_instances, has_depth=metadata.has_depth
    )
    _check_tracking(args, metadata.has_instances, segmenter.keeps_ids)
    return _tracked(args, segmenter), options


def _open_checkpoint(args: argparse.Namespace) -> "tuple[ClipSegmenter, ViewOptions]":
    from deeplab2_edge.config import load_config
    from deeplab2_edge.experiments import find_config
    from deeplab2_edge.families import abilities_of

    for option in ("threads", "delegate"):
        if getattr(args, option) is not None:
            raise UsageError(
                f"--{option} belongs to converted files; {args.model} is a checkpoint"
            )
    config = load_config(find_config(args.model, args.config))
    abilities = abilities_of(config)
    options = _drawing(
        args,
        has_instances=abilities.has_instances,
        has_depth=abilities.has_depth,
    )
    _check_tracking(args, abilities.has_instances, abilities.keeps_ids)
    if args.input_size:
        stride = config.model_options.backbone.output_stride
        check_size(args.input_size, stride, "--input-size")
    from deeplab2_edge.models.engine import load_engine
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter

    engine = load_engine(config, args.model, canvas=args.input_size)
    return _tracked(args, PanopticSegmenter(engine)), options


def _check_tracking(
    args: argparse.Namespace, has_instances: bool, keeps_ids: bool
) -> None:
    if args.track and not has_instances:
        raise UsageError(
            f"--track: {args.model} has no instances that could be tracked"
        )
    if args.track and keeps_ids:
        raise UsageError(
            f"--track: {args.model} follows instances by itself; leave it out"
        )


def _tracked(args: argparse.Namespace, segmenter: "ClipSegmenter") -> "ClipSegmenter":
    from deeplab2_edge.runtime.clips import TrackingSegmenter

    return TrackingSegmenter(segmenter) if args.track else segmenter


def _drawing(
    args: argparse.Namespace, *, has_instances: bool, has_depth: bool
) -> "ViewOptions":
    if args.no_overlay and args.save is not None:
        raise UsageError("--no-overlay and --save contradict each other; give one")
    options = read_drawing_options(
        args, has_instances=has_instances, has_depth=has_depth, source=args.model
    )
    return dataclasses.replace(options, kinds=()) if args.no_overlay else options


class _Job:
    """Segments sources one after the other and remembers what happened."""

    def __init__(
        self,
        segmenter: "ClipSegmenter",
        folder: Path | None,
        artist: "Artist | None",
        *,
        keep: bool,
    ) -> None:
        self.failures: list[dict[str, str]] = []
        self._segmenter = segmenter
        self._folder = folder
        self._artist = artist
        self._keep = keep
        self._results: list[dict[str, Any]] = []
        self._count = 0
        self._num_read = 0
        self._limit: int | None = None
        self._is_alone = False
        self._ticks: Iterator[int] = iter(())
        self._stage_ms: collections.Counter[str] = collections.Counter()
        self._last: PanopticResult | None = None

    def run(self, sources: "list[Source]", *, limit: int | None, quiet: bool) -> None:
        """Segments all frames of all sources, at most `limit`."""
        self._limit = limit
        self._is_alone = len(sources) == 1
        counts = [source.num_frames for source in sources]
        known = [count for count in counts if count is not None]
        total = sum(known) if len(known) == len(counts) else None
        if limit is not None:
            total = min(total, limit) if total is not None else limit
        self._ticks = progress(
            range(total or 0),
            total=total or 0,
            label="segmenting",
            quiet=quiet or total is None,
        )
        self._tick()
        numbered = enumerate(sources)
        for _, group in itertools.groupby(numbered, key=lambda n: _clip_key(*n)):
            if self._is_full:
                break
            clip = [source for _, source in group]
            if self._artist is not None:
                self._artist.begin_video()
            if clip[0].kind == "image":
                self._segment_images(clip)
                continue
            try:
                self._segment_video(clip[0])
            except DataError as error:
                self._fail(clip[0], error)

    def document(self) -> dict[str, Any]:
        """Gives the document of `--json`."""
        return {
            "model": self._segmenter.name,
            "results": self._results,
            "failures": self.failures,
            "summary": {
                "images": self._count,
                "failed": len(self.failures),
                "mean_ms": {k: round(v, 3) for k, v in self._mean_ms().items()},
                "output": str(self._folder) if self._folder else None,
            },
        }

    def print_summary(self) -> None:
        """Prints what was done, for people."""
        if self._count == 1 and self._last is not None:
            _print_segments(self._last)
        stages = self._mean_ms()
        seconds = sum(self._stage_ms.values()) / 1000
        print(f"{counted(self._count, 'image')} in {format_seconds(seconds)}")
        if stages:
            per_stage = ", ".join(f"{name} {ms:.1f}" for name, ms in stages.items())
            print(f"ms per image: {per_stage}; total {sum(stages.values()):.1f}")
        if self.failures:
            print(f"{len(self.failures)} could not be read, see above")
        print(f"results: {self._folder}")

    def _mean_ms(self) -> dict[str, float]:
        return {name: ms / self._count for name, ms in self._stage_ms.items()}

    @property
    def _is_full(self) -> bool:
        return self._limit is not None and self._num_read >= self._limit

    def _tick(self) -> None:
        """Reports that one more image is done; the first call starts the clock."""
        next(self._ticks, None)

    def _fail(self, source: "Source", error: DataError) -> None:
        """Notes that a source cannot be used; the only one ends the command."""
        if self._is_alone:
            raise error
        print(f"deeplab2-edge run: {error}", file=sys.stderr)
        self.failures.append({"source": source.name, "error": str(error)})
        self._tick()

    def _segment_images(self, sources: "Sequence[Source]") -> None:
        """Segments images that follow each other; each gets its own files."""
        read: collections.deque[tuple[Source, Frame]] = collections.deque()
        frames = self._read_images(sources, read)
        for result in self._segmenter.segment_video(frames):
            source, frame = read.popleft()
            result, drawn = self._finish(frame, result)
            files = {}
            if self._folder is not None:
                files = self._save(result, drawn, source.stem)
            if self._keep:
                self._results.append(
                    {"source": source.name, **result.to_dict(), "files": files}
                )
            self._tick()

    def _read_images(
        self,
        sources: "Sequence[Source]",
        read: "collections.deque[tuple[Source, Frame]]",
    ) -> Iterator[Any]:
        """Yields images, and appends where they come from; skips what is damaged."""
        size: tuple[int, ...] | None = None
        for source in sources:
            if self._is_full:
                return
            try:
                (frame,) = source.frames()
                shape = frame.image.shape
                if self._segmenter.keeps_ids and size not in (None, shape):
                    raise DataError(
                        f"{source.name}: has {shape[0]}x{shape[1]} pixels, the images "
                        f"before it {size[0]}x{size[1]}; frames of a video have one "  # type: ignore[index]
                        "size: give images that are no video one by one"
                    )
            except DataError as error:
                self._fail(source, error)
                continue
            size = shape
            self._num_read += 1
            read.append((source, frame))
            yield frame.image

    def _save(
        self, result: "PanopticResult", drawn: "Drawn | None", stem: str
    ) -> dict[str, str]:
        from deeplab2_edge.runtime.views import save_drawn

        assert self._folder is not None
        paths = {} if drawn is None else save_drawn(self._folder, stem, drawn)
        # With the JSON, last: its presence says that all is there.
        paths |= result.save(self._folder, stem, overlay=False)
        return {kind: str(path) for kind, path in paths.items()}

    def _segment_video(self, source: "Source") -> None:
        """Segments a video; its files appear when they are complete."""
        from deeplab2_edge.runtime.views import open_views

        files: dict[str, str] = {}
        first = self._count
        read: collections.deque[Frame] = collections.deque()
        with contextlib.ExitStack() as stack:
            lines = views = None
            if self._folder is not None:
                target = self._folder / f"{source.stem}.jsonl"
                files["json"] = str(target)
                partial = stack.enter_context(atomic_write(target))
                lines = stack.enter_context(partial.open("w", encoding="utf-8"))
                if self._artist is not None:
                    kinds = self._artist.options.kinds
                    views = stack.enter_context(
                        open_views(self._folder, source.stem, kinds, source.fps)
                    )
            try:
                images = self._read_video(source, read)
                for result in self._segmenter.segment_video(images):
                    frame = read.popleft()
                    result, drawn = self._finish(frame, result)
                    place = {"source": source.name, "frame": frame.index}
                    entry = {**place, **result.to_dict()}
                    if views is not None and drawn is not None:
                        views.write(drawn)
                        files |= {kind: str(path) for kind, path in views.paths.items()}
                    if lines is not None:
                        print(json.dumps(entry), file=lines)
                    if self._keep:
                        self._results.append({**entry, "files": files})
                    self._tick()
            except KeyboardInterrupt:
                # That is how a camera ends: what it has seen is kept.
                if source.kind != "camera" or self._count == first:
                    raise

    def _read_video(
        self, source: "Source", read: "collections.deque[Frame]"
    ) -> Iterator[Any]:
        for frame in source.frames():
            self._num_read += 1
            read.append(frame)
            yield frame.image
            if self._is_full:
                return

    def _finish(
        self, frame: "Frame", result: "PanopticResult"
    ) -> tuple["PanopticResult", "Drawn | None"]:
        """Draws a result and counts its times."""
        from deeplab2_edge.runtime.timing import StageTimer

        timer = StageTimer()
        drawn = None
        if self._artist is not None:
            with timer.stage("draw"):
                drawn = self._artist.draw(result)
        times = {
            "decode": frame.decode_ms,
            **result.timings_ms,
            **timer.milliseconds,
        }
        self._stage_ms.update(times)
        self._count += 1
        result = dataclasses.replace(result, timings_ms=times)
        self._last = result
        return result, drawn


def _clip_key(number: int, source: "Source") -> tuple[Any, ...]:
    """Gives images of one clip equal keys, and each video one of its own."""
    return ("image", source.clip) if source.kind == "image" else ("video", number)


def _print_segments(result: "PanopticResult") -> None:
    total = result.panoptic.size
    print(f"{'class':<16} {'score':>6} {'area':>7}  box (left, top, right, bottom)")
    for segment in sorted(result.segments, key=lambda s: -s.area_px):
        score = "" if segment.score is None else f"{segment.score:.2f}"
        print(
            f"{segment.class_name:<16} {score:>6} {segment.area_px / total:>7.1%}  "
            f"{segment.box_xyxy}"
        )
