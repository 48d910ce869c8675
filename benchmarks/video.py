"""Do instances keep their ids over a video, and what does following them cost?

Segments rendered videos of a moving camera among cars and people, who hide each other,
with the shipped checkpoint as int8, and follows what it finds in several ways: at 10
frames per second, at a third of that, and in videos that cut from street to street.
Counts id switches and flicker against the exact truth, and measures processor time.

    python -m benchmarks.video [--model FILE.tflite] [--videos 8] [--frames 60]

Writes `tracking` and `cost` into the JSON; what else stands there stays, of whoever
measures other things of videos. The videos are not those by which the settings of
`MaskTrackingSettings` were chosen (seeds 1 000 101 to 1 000 108).
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.command import run_command
from deeplab2_edge.files import atomic_write
from deeplab2_edge.metrics import FlickerRate, IdentityQuality
from deeplab2_edge.panoptic import IouTracker, IouTrackingSettings, change_divisor
from deeplab2_edge.runtime import PanopticResult, PanopticSegmenter
from deeplab2_edge.runtime.machine import describe_machine
from deeplab2_edge.runtime.results import result_from_maps
from deeplab2_edge.runtime.tracking import ResultTracker, TrackingOptions
from deeplab2_edge.synth import render_video

FIRST_SEED = 1_000_201
# Shots of a video with cuts, in frames.
_SHOT = 12
_DIVISOR = 10_000
_COST_SIZES = ((257, 513), (513, 1025), (1025, 2049))
_COST_FRAMES = 20
_DEFAULT_OUTPUT = Path(__file__).parent / "results" / "video.json"

Tracker = Callable[[PanopticResult], NDArray[np.int32]]


@dataclasses.dataclass(frozen=True, eq=False)
class Shot:
    """Is a frame with its truth, whose ids are those of the whole video."""

    result: PanopticResult
    groundtruth: NDArray[np.int32]


Video = Sequence[Shot]


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: converts the checkpoint")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--output", type=Path, default=_DEFAULT_OUTPUT)
    args = parser.parse_args()
    # Processor time of one thread can be compared on a busy machine.
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or _convert(Path(folder))
        segmenter = PanopticSegmenter(model)
        videos = [
            _segment(segmenter, FIRST_SEED + number, args.frames)
            for number in range(args.videos)
        ]
    rows = []
    for (kind, chosen), (name, make) in itertools.product(
        _kinds(videos).items(), _trackers(videos[0][0].result).items()
    ):
        rows.append({"videos": kind, "tracker": name, **_follow(chosen, make)})
        print(json.dumps(rows[-1]), flush=True)
    document = json.loads(args.output.read_text()) if args.output.is_file() else {}
    document |= {
        "tracking": {
            "command": "python -m benchmarks.video",
            "model": segmenter.name,
            "num_videos": args.videos,
            "num_frames": args.frames,
            "machine": describe_machine(),
            "rows": rows,
        },
        "cost": _cost(max(videos, key=_num_things)),
    }
    with atomic_write(args.output) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{args.output} written; `python -m benchmarks.tables` makes the tables")


def _convert(folder: Path) -> Path:
    path = folder / "int8.tflite"
    run_command("convert", "--quantize", "int8", "--output", str(path))
    return path


def _segment(segmenter: PanopticSegmenter, seed: int, num_frames: int) -> Video:
    print(f"segmenting street {seed}", flush=True)
    divisor = segmenter.metadata.label_divisor
    return [
        Shot(segmenter(scene.image), _with_divisor(scene.panoptic, divisor))
        for scene in render_video(seed, num_frames=num_frames)
    ]


def _kinds(videos: Sequence[Video]) -> dict[str, Sequence[Video]]:
    """Gives the same frames as videos of several kinds."""
    return {
        "10 frames/s": videos,
        "3.3 frames/s": [video[::3] for video in videos],
        "10 frames/s, cuts": [_with_cuts(videos, n) for n in range(len(videos))],
    }


def _with_cuts(videos: Sequence[Video], first: int) -> Video:
    """Shows a few frames of each street; what comes back later is new there."""
    frames = []
    shots = len(videos[first]) // _SHOT
    for number in range(shots):
        video = videos[(first + number) % len(videos)]
        for shot in video[number * _SHOT : (number + 1) * _SHOT]:
            instance = shot.groundtruth % _DIVISOR
            moved = shot.groundtruth + np.where(instance, 1000 * number, 0)
            frames.append(dataclasses.replace(shot, groundtruth=moved.astype(np.int32)))
    return frames


def _trackers(example: PanopticResult) -> dict[str, Callable[[], Tracker]]:
    """Names the ways to give ids; all give them with the divisor of tracks."""
    classes = example.metadata

    def numbered() -> Tracker:
        return lambda result: _with_divisor(result.panoptic, classes.label_divisor)

    def by_overlap() -> Tracker:
        settings = IouTrackingSettings(classes.thing_ids, classes.label_divisor)
        tracker = IouTracker(settings)
        return lambda result: tracker.update(result.panoptic).panoptic

    def followed(**options: bool) -> Callable[[], Tracker]:
        def make() -> Tracker:
            tracker = ResultTracker(classes, TrackingOptions(**options))
            return lambda result: tracker(result).panoptic

        return make

    return {
        "none": numbered,
        "overlap, as published with STEP": by_overlap,
        "`--track` without flow": followed(uses_flow=False),
        "`--track` without cuts": followed(finds_cuts=False),
        "`--track`": followed(),
    }


def _follow(videos: Sequence[Video], make: Callable[[], Tracker]) -> dict[str, Any]:
    """Follows the instances of videos and compares with the truth."""
    classes = videos[0][0].result.metadata
    space = {"label_divisor": _DIVISOR, "thing_ids": classes.thing_ids}
    identity = IdentityQuality(classes.num_classes, classes.ignore_label, **space)
    flicker = FlickerRate(classes.ignore_label, **space)
    seconds = []
    for number, video in enumerate(videos):
        track = make()
        for shot in video:
            start = time.process_time()
            panoptic = track(shot.result)
            seconds.append(time.process_time() - start)
            identity.update(shot.groundtruth, panoptic, sequence=number)
            flicker.update(shot.groundtruth, panoptic, sequence=number)
    ids, changes = identity.result().total, flicker.result().total
    return {
        "id_switches": ids.id_switches,
        "fragmentations": ids.fragmentations,
        "idf1": ids.idf1,
        # Of a tracker that makes no mistake with what the model finds.
        "best_idf1": 2 * ids.tp / (ids.num_true + ids.tp + ids.fp),
        "motsa": ids.motsa,
        "flicker_classes": changes.classes,
        "flicker_ids": changes.ids,
        "num_frames": ids.num_frames,
        "num_tracks": ids.num_tracks,
        "found": ids.tp,
        "cpu_ms": statistics.fmean(seconds) * 1000,
    }


def _cost(video: Video) -> dict[str, Any]:
    """Measures trackers on one video brought to several sizes, in turn."""
    rows = []
    for size in _COST_SIZES:
        results = [*_resized(video[:_COST_FRAMES], size)]
        seconds: dict[str, list[float]] = {}
        for name, make in _trackers(results[0]).items():
            seconds[name] = []
            track = make()
            for result in results:
                start = time.process_time()
                track(result)
                seconds[name].append(time.process_time() - start)
        things = [sum(s.is_thing for s in result.segments) for result in results]
        for name, times in seconds.items():
            row = {"size": size, "tracker": name, "things": statistics.fmean(things)}
            rows.append({**row, "cpu_ms": statistics.median(times) * 1000})
            print(json.dumps(rows[-1]), flush=True)
    return {"rows": rows}


def _resized(video: Video, size: tuple[int, int]) -> Iterator[PanopticResult]:
    for shot in video:
        result = shot.result
        rows, columns = (
            np.arange(new) * old // new
            for new, old in zip(size, result.panoptic.shape, strict=True)
        )
        place = np.ix_(rows, columns)
        yield result_from_maps(
            result.image[place], result.panoptic[place], result.metadata
        )


def _num_things(video: Video) -> int:
    return sum(s.is_thing for shot in video for s in shot.result.segments)


def _with_divisor(panoptic: NDArray[np.int32], label_divisor: int) -> NDArray[np.int32]:
    return change_divisor(panoptic, label_divisor=label_divisor, new_divisor=_DIVISOR)


if __name__ == "__main__":
    main()
