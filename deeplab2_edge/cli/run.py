"""`deeplab2-edge run`: segment images, folders, videos and cameras."""

import argparse
import collections
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.arguments import add_command
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.progress import format_seconds, progress
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.runtime.results import PanopticResult
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter
    from deeplab2_edge.runtime.sources import Frame, Source

_DEFAULT_OUTPUT = "results"

_EPILOG = """\
Writes for each image NAME_overlay.png, NAME_panoptic.png (COCO panoptic format) and
NAME.json; for each video or camera NAME_overlay.mp4 and NAME.jsonl with one line per
frame. A camera runs until Ctrl-C or --limit.

With --json, standard output is one document with `model`, `results`, `failures` and
`summary`; files are then written only if --output is given.

examples:
  deeplab2-edge run model.tflite photo.jpg
  deeplab2-edge run model.tflite photos/ more.png --output results/
  deeplab2-edge run model.tflite drive.mp4 --limit 300
  deeplab2-edge run model.tflite 0 --limit 100
  deeplab2-edge run model.tflite photo.jpg --json | jq '.results[0].segments'
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        subparsers,
        "run",
        help="segment images, folders, videos or a camera",
        description="Segments images with a converted model.",
        examples=_EPILOG,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a .tflite file made by `deeplab2-edge convert`"
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
    from deeplab2_edge.runtime.segmenter import PanopticSegmenter
    from deeplab2_edge.runtime.sources import open_sources

    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is {args.limit}; it must be at least 1")
    sources = open_sources(args.inputs)
    segmenter = PanopticSegmenter(
        args.model, num_threads=args.threads, delegate=args.delegate
    )
    folder = None
    if args.output is not None or not args.json:
        folder = ensure_output_dir(args.output or _DEFAULT_OUTPUT)
    job = _Job(segmenter, folder, draw=not args.no_overlay, keep=args.json)
    job.run(sources, limit=args.limit, quiet=args.quiet)
    if args.json:
        print(json.dumps(job.document(), indent=1))
    else:
        job.print_summary()
    return 2 if job.failures else 0


class _Job:
    """Segments sources one after the other and remembers what happened."""

    def __init__(
        self,
        segmenter: "PanopticSegmenter",
        folder: Path | None,
        *,
        draw: bool,
        keep: bool,
    ) -> None:
        self.failures: list[dict[str, str]] = []
        self._segmenter = segmenter
        self._folder = folder
        self._draw = draw and folder is not None
        self._keep = keep
        self._results: list[dict[str, Any]] = []
        self._count = 0
        self._limit: int | None = None
        self._ticks: Iterator[int] = iter(())
        self._stage_ms: collections.Counter[str] = collections.Counter()
        self._last: PanopticResult | None = None

    def run(self, sources: "list[Source]", *, limit: int | None, quiet: bool) -> None:
        """Segments all frames of all sources, at most `limit`."""
        self._limit = limit
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
        for source in sources:
            if self._is_full:
                break
            try:
                if source.kind == "image":
                    self._segment_image(source)
                else:
                    self._segment_video(source)
            except DataError as error:
                if len(sources) == 1:
                    raise
                print(f"deeplab2-edge run: {error}", file=sys.stderr)
                self.failures.append({"source": source.name, "error": str(error)})
                self._tick()

    def document(self) -> dict[str, Any]:
        """Gives the document of `--json`."""
        return {
            "model": self._segmenter.metadata.name,
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
        return self._limit is not None and self._count >= self._limit

    def _tick(self) -> None:
        """Reports that one more image is done; the first call starts the clock."""
        next(self._ticks, None)

    def _segment_image(self, source: "Source") -> None:
        for frame in source.frames():
            result, overlay = self._segment(frame)
            files = {}
            if self._folder is not None:
                drawn = False if overlay is None else overlay
                paths = result.save(self._folder, source.stem, overlay=drawn)
                files = {kind: str(path) for kind, path in paths.items()}
            if self._keep:
                self._results.append(
                    {"source": source.name, **result.to_dict(), "files": files}
                )
            self._tick()

    def _segment_video(self, source: "Source") -> None:
        """Segments a video; its files appear when they are complete."""
        from deeplab2_edge.runtime.video import open_video

        files: dict[str, str] = {}
        first = self._count
        with contextlib.ExitStack() as stack:
            lines = video = None
            if self._folder is not None:
                target = self._folder / f"{source.stem}.jsonl"
                files["json"] = str(target)
                partial = stack.enter_context(atomic_write(target))
                lines = stack.enter_context(partial.open("w", encoding="utf-8"))
                if self._draw:
                    target = self._folder / f"{source.stem}_overlay.mp4"
                    files["overlay"] = str(target)
                    video = stack.enter_context(open_video(target, source.fps))
            try:
                for frame in source.frames():
                    result, overlay = self._segment(frame)
                    place = {"source": source.name, "frame": frame.index}
                    entry = {**place, **result.to_dict()}
                    if lines is not None:
                        print(json.dumps(entry), file=lines)
                    if video is not None and overlay is not None:
                        video.write(overlay)
                    if self._keep:
                        self._results.append({**entry, "files": files})
                    self._tick()
                    if self._is_full:
                        break
            except KeyboardInterrupt:
                # That is how a camera ends: what it has seen is kept.
                if source.kind != "camera" or self._count == first:
                    raise

    def _segment(self, frame: "Frame") -> tuple["PanopticResult", Any]:
        from deeplab2_edge.runtime.timing import StageTimer

        result = self._segmenter(frame.image)
        timer = StageTimer()
        overlay = None
        if self._draw:
            with timer.stage("draw"):
                overlay = result.overlay()
        times = {
            "decode": frame.decode_ms,
            **result.timings_ms,
            **timer.milliseconds,
        }
        self._stage_ms.update(times)
        self._count += 1
        result = dataclasses.replace(result, timings_ms=times)
        self._last = result
        return result, overlay


def _print_segments(result: "PanopticResult") -> None:
    total = result.panoptic.size
    print(f"{'class':<16} {'score':>6} {'area':>7}  box (left, top, right, bottom)")
    for segment in sorted(result.segments, key=lambda s: -s.area_px):
        score = "" if segment.score is None else f"{segment.score:.2f}"
        print(
            f"{segment.class_name:<16} {score:>6} {segment.area_px / total:>7.1%}  "
            f"{segment.box_xyxy}"
        )
