"""The work of `deeplab2-edge run`: sources through a pipeline into sinks."""

import collections
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from deeplab2_edge.cli.run_model import OpenedModel
from deeplab2_edge.cli.run_outputs import Outputs
from deeplab2_edge.cli.signals import StopSignals
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.progress import format_seconds, progress
from deeplab2_edge.wording import counted

if TYPE_CHECKING:
    from deeplab2_edge.runtime.results import PanopticResult
    from deeplab2_edge.runtime.sinks import Done, Sink
    from deeplab2_edge.runtime.sources import Frame, Source
    from deeplab2_edge.runtime.views import Artist

# Of cameras, by default: less than three frames of most.
_BUDGET_MS = 100.0
_MAX_BUDGET_MS = 60_000.0


class Job:
    """Segments sources one after the other and remembers what happened.

    Args:
        model: Of any family.
        artist: Draws; None draws nothing.
        outputs: Where it all goes.
        signals: Asked between frames.
        limit: Of images and frames.
        budget_ms: See `FramePipeline`; None is `_BUDGET_MS` for what is live.
        keep: Remember the results for `document`.

    Attributes:
        failures: Sources that could not be read, or not to their end.
        count: Images and frames that are done.
    """

    def __init__(
        self,
        model: OpenedModel,
        artist: "Artist | None",
        outputs: Outputs,
        signals: StopSignals,
        *,
        limit: int | None = None,
        budget_ms: float | None = None,
        keep: bool = False,
    ) -> None:
        self.failures: list[dict[str, str]] = []
        self.count = 0
        self._model = model
        self._segmenter = model.segmenter
        self._artist = artist
        self._outputs = outputs
        self._signals = signals
        self._limit = limit
        self._budget_ms = budget_ms
        self._keep = keep
        self._results: list[dict[str, Any]] = []
        self._num_read = 0
        self._num_skipped = 0
        self._num_ticks = 0
        self._seconds = 0.0
        self._is_alone = False
        self._has_quit = False
        self._ticks: Iterator[int] = iter(())
        self._stage_ms: collections.Counter[str] = collections.Counter()
        self._last: PanopticResult | None = None

    def run(self, sources: "list[Source]", *, quiet: bool) -> None:
        """Segments all frames of all sources, until the limit or a signal."""
        from deeplab2_edge.runtime.sinks import closing

        self._is_alone = len(sources) == 1
        self._ticks = self._progress(sources, quiet)
        next(self._ticks, None)  # starts its clock
        start = time.monotonic()
        numbered = enumerate(sources)
        with closing(self._outputs.shared):
            for _, group in itertools.groupby(numbered, key=lambda n: _clip_key(*n)):
                if self._is_over:
                    break
                self._segment([source for _, source in group])
        self._seconds = time.monotonic() - start

    def document(self) -> dict[str, Any]:
        """Gives the document of `--json`."""
        folder = self._outputs.folder
        return {
            "model": self._segmenter.name,
            "engine": self._engine(),
            "results": self._results,
            "failures": self.failures,
            "summary": {
                "images": self.count,
                "failed": len(self.failures),
                "skipped": self._num_skipped,
                "seconds": round(self._seconds, 3),
                "mean_ms": {k: round(v, 3) for k, v in self._mean_ms().items()},
                "output": str(folder) if folder else None,
            },
        }

    def print_summary(self) -> None:
        """Prints what was done, for people."""
        if self.count == 1 and self._last is not None:
            _print_segments(self._last)
        rate = (
            f", {self.count / self._seconds:.1f} per second" if self.count > 1 else ""
        )
        images = counted(self.count, "image")
        print(f"{images} in {format_seconds(self._seconds)}{rate}")
        if stages := self._mean_ms():
            per_stage = ", ".join(f"{name} {ms:.1f}" for name, ms in stages.items())
            print(f"ms per image: {per_stage}")
        if (report := self._model.report) is not None:
            reason = report.fallback_reason
            print(f"engine: {report}" + (f" ({reason})" if reason else ""))
        if self._num_skipped:
            frames = counted(self._num_skipped, "frame")
            print(f"{frames} skipped, which came while the network was busy")
        if self.failures:
            print(f"{len(self.failures)} could not be read, see above")
        if self._outputs.folder is not None:
            print(f"results: {self._outputs.folder}")

    @property
    def _is_full(self) -> bool:
        return self._limit is not None and self.count >= self._limit

    @property
    def _is_over(self) -> bool:
        return self._is_full or self._has_quit or self._signals.is_received

    def _engine(self) -> dict[str, Any] | None:
        report = self._model.report
        if report is None:
            return None
        return {**report.to_dict(), "why": list(self._model.why)}

    def _segment(self, clip: "list[Source]") -> None:
        """Segments a video, or images that follow each other."""
        from deeplab2_edge.runtime.pipeline import FramePipeline
        from deeplab2_edge.runtime.sinks import closing

        if self._artist is not None:
            self._artist.begin_video()
        source = clip[0]
        before = self.count
        own = self._outputs.open(source)
        pipeline = FramePipeline(
            self._read(clip),
            self._segmenter,
            budget_ms=_budget_of(source, self._budget_ms),
            should_stop=lambda: self._signals.is_received,
        )
        try:
            with closing(own), pipeline:
                for frame, result in pipeline:
                    done = self._finish(frame, result)
                    self._write(done, [*own, *self._outputs.shared])
                    if self._is_full or self._has_quit:
                        break
        except DataError as error:
            # The only source ends the command, if nothing came of it.
            if self._is_alone and self.count == before:
                raise
            self._fail(source, error)
        self._num_skipped += pipeline.num_skipped

    def _read(self, clip: "list[Source]") -> "Iterator[Frame]":
        """Yields the frames of a clip; runs in a thread of the pipeline."""
        if clip[0].kind == "image":
            frames = self._read_images(clip)
        else:
            frames = clip[0].frames()
        if self._limit is None or _budget_of(clip[0], self._budget_ms) is not None:
            yield from frames
            return
        for frame in frames:
            self._num_read += 1
            yield frame
            if self._num_read >= self._limit:
                return

    def _read_images(self, sources: "Sequence[Source]") -> "Iterator[Frame]":
        """Yields images; passes over what is damaged."""
        size: tuple[int, ...] | None = None
        for source in sources:
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
                if self._is_alone:
                    raise
                self._fail(source, error)
                continue
            size = shape
            yield frame

    def _finish(self, frame: "Frame", result: "PanopticResult") -> "Done":
        """Draws a result and adds up its times."""
        from deeplab2_edge.runtime.sinks import Done
        from deeplab2_edge.runtime.timing import WAIT, StageTimer

        timer = StageTimer()
        drawn = None
        if self._artist is not None:
            with timer.stage("draw"):
                drawn = self._artist.draw(result)
        times = {} if frame.wait_ms is None else {WAIT: frame.wait_ms}
        times |= {"decode": frame.decode_ms, **result.timings_ms, **timer.milliseconds}
        self._stage_ms.update(times)
        result = dataclasses.replace(result, timings_ms=times)
        self._last = result
        return Done(frame, result, drawn)

    def _write(self, done: "Done", sinks: "list[Sink]") -> None:
        from deeplab2_edge.runtime.sinks import Quit

        files: dict[str, str] = {}
        for sink in sinks:
            try:
                files |= sink.write(done)
            except Quit:
                self._has_quit = True
        self.count += 1
        if self._keep:
            place: dict[str, Any] = {"source": done.frame.source}
            if done.frame.is_of_video:
                place["frame"] = done.frame.index
            entry = {**place, **done.result.to_dict(), "files": files}
            self._results.append(entry)
        self._tick()

    def _fail(self, source: "Source", error: DataError) -> None:
        print(f"deeplab2-edge run: {error}", file=sys.stderr)
        self.failures.append({"source": source.name, "error": str(error)})

    def _mean_ms(self) -> dict[str, float]:
        return {name: ms / self.count for name, ms in self._stage_ms.items()}

    def _progress(self, sources: "list[Source]", quiet: bool) -> Iterator[int]:
        counts = [source.num_frames for source in sources]
        known = [count for count in counts if count is not None]
        total = sum(known) if len(known) == len(counts) else self._limit
        if self._limit is not None:
            total = min(total or self._limit, self._limit)
        return progress(
            range(total or 0),
            total=total or 0,
            label="segmenting",
            quiet=quiet or total is None,
        )

    def _tick(self) -> None:
        """Reports all that is over by now; failures are noted in another thread."""
        while self._num_ticks < self.count + len(self.failures):
            next(self._ticks, None)
            self._num_ticks += 1


def check_budget(budget_ms: float | None, sources: "Sequence[Source]") -> None:
    """Refuses a budget that cannot be, or that belongs to none of the sources.

    Raises:
        UsageError: If so.
    """
    if budget_ms is None:
        return
    if not 0 <= budget_ms <= _MAX_BUDGET_MS:
        raise UsageError(
            f"--latency-budget is {budget_ms:g}; it must be 0 to {_MAX_BUDGET_MS:g} "
            "milliseconds"
        )
    if all(_budget_of(source, budget_ms) is None for source in sources):
        raise UsageError(
            "--latency-budget is for cameras, live streams and -; of files no frame is "
            "skipped"
        )


def _budget_of(source: "Source", budget_ms: float | None) -> float | None:
    """Gives how long frames of a source may wait; None of what waits itself."""
    if source.is_live:
        return _BUDGET_MS if budget_ms is None else budget_ms
    # A program at the other end of a pipe may wait, or may be a camera.
    return budget_ms if source.kind == "pipe" else None


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
