"""The main job on the shipped checkpoint: convert, run, measure, show.

Everything is real and small: scenes no training has seen, one int8 conversion, the
runtime of devices, its benchmark on this machine.
"""

import base64
import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import assets
from deeplab2_edge.config import load_config
from deeplab2_edge.convert.options import ConversionOptions
from deeplab2_edge.convert.pipeline import ConversionResult, convert_checkpoint
from deeplab2_edge.experiments import find_config
from deeplab2_edge.files import atomic_write, ensure_output_dir
from deeplab2_edge.images import encode_png, write_png
from deeplab2_edge.metrics import (
    EvaluationReport,
    evaluate_predictions,
    format_report,
)
from deeplab2_edge.models.engine import load_engine
from deeplab2_edge.runtime import PanopticSegmenter
from deeplab2_edge.runtime.benchmark import BenchmarkReport, draw_plot, run_benchmark
from deeplab2_edge.samples import SYNTHETIC, SampleSet, open_samples
from deeplab2_edge.wording import counted

MODEL_NAME = "model_int8.tflite"
REPORT_NAME = "report.html"
_NUM_OVERLAYS = 6
_BENCHMARK_REPEATS = 30
# Between the pictures of one row.
_GAP_PX = 4


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Holds what the demo found and where it wrote it.

    Attributes:
        float_report: Accuracy of the checkpoint.
        int8_report: Accuracy of the converted file on the same scenes.
        conversion: The conversion.
        benchmark: Latency of the converted file on this machine.
        overlays: Pictures: scene, ground truth, prediction.
        report: The page that shows it all.
        seconds: Of the whole demo.
    """

    float_report: EvaluationReport
    int8_report: EvaluationReport
    conversion: ConversionResult
    benchmark: BenchmarkReport
    overlays: tuple[Path, ...]
    report: Path
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Gives the figures (as fractions) and the paths of what was written."""
        return {
            "pq_float": self.float_report.pq.pq,
            "pq_int8": self.int8_report.pq.pq,
            "miou_float": self.float_report.miou.miou,
            "miou_int8": self.int8_report.miou.miou,
            "num_scenes": self.int8_report.num_images,
            "model": str(self.conversion.output),
            "model_bytes": self.conversion.file_bytes,
            "latency": self.benchmark.to_dict(),
            "overlays": [str(path) for path in self.overlays],
            "report": str(self.report),
            "conversion_report": str(self.conversion.report_path),
            "seconds": round(self.seconds, 1),
        }


def run_demo(
    output: str | Path,
    *,
    checkpoint: str = assets.DEMO_CHECKPOINT,
    num_scenes: int = 40,
    quiet: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Converts a checkpoint of the synthetic world to int8 and measures both.

    Args:
        output: Folder for the model, pictures and the report.
        checkpoint: See `checkpoints.resolve_checkpoint`.
        num_scenes: Held-out scenes to measure on.
        quiet: Report no progress.
        say: Receives a line when a part begins.
    """
    started = time.monotonic()
    folder = ensure_output_dir(output)
    config = load_config(find_config(checkpoint))
    height, width = config.eval_dataset_options.crop_size
    data = open_samples(SYNTHETIC, limit=num_scenes, synthetic_size=(height, width))

    say("1/4 converting the checkpoint to int8")
    conversion = convert_checkpoint(
        ConversionOptions(
            checkpoint=checkpoint,
            quantization="int8",
            calibration_data=f"{SYNTHETIC}:train",
            output=folder / MODEL_NAME,
        ),
        quiet=quiet,
    )
    say(f"2/4 measuring float and int8 on {num_scenes} held-out scenes")
    segmenter = PanopticSegmenter(conversion.output)
    scenes = _render(data)
    float_report, int8_report = (
        evaluate_predictions(
            predict, scenes.samples, scenes.info, label=label, quiet=quiet
        )
        for label, predict in (
            ("float", PanopticSegmenter(load_engine(config, checkpoint))),
            ("int8", segmenter),
        )
    )
    say("3/4 measuring latency on this machine")
    benchmark = run_benchmark(
        conversion.output, threads=(1, 2), repeats=_BENCHMARK_REPEATS, quiet=quiet
    )
    say("4/4 drawing")
    overlays = _draw(folder, segmenter, scenes)
    report = folder / REPORT_NAME
    result = DemoResult(
        float_report=float_report,
        int8_report=int8_report,
        conversion=conversion,
        benchmark=benchmark,
        overlays=overlays,
        report=report,
        seconds=time.monotonic() - started,
    )
    with atomic_write(report) as temporary:
        temporary.write_text(_page(result))
    return result


@dataclass(frozen=True, eq=False)
class _Loaded:
    """Is a sample whose image and labels are in memory: it is used twice."""

    name: str
    image: NDArray[np.uint8]
    panoptic: NDArray[np.int32]

    def load_image(self) -> NDArray[np.uint8]:
        return self.image

    def load_panoptic(self) -> NDArray[np.int32]:
        return self.panoptic


def _render(data: SampleSet) -> SampleSet:
    loaded = []
    for sample in data.samples:
        panoptic = sample.load_panoptic()
        assert panoptic is not None  # the synthetic world is labeled
        loaded.append(_Loaded(sample.name, sample.load_image(), panoptic))
    return SampleSet(data.info, loaded)


def _draw(
    folder: Path, segmenter: PanopticSegmenter, scenes: SampleSet
) -> tuple[Path, ...]:
    palette = np.array([*scenes.info.colors, (0, 0, 0)], np.uint8)
    paths = []
    for sample in scenes.samples[:_NUM_OVERLAYS]:
        image = sample.load_image()
        labels = sample.load_panoptic()
        assert labels is not None
        classes = np.minimum(
            labels // scenes.info.label_divisor, scenes.info.num_classes
        )
        truth = (0.4 * image + 0.6 * palette[classes]).astype(np.uint8)
        path = folder / f"{sample.name}.png"
        write_png(path, _side_by_side([image, truth, segmenter(image).overlay()]))
        paths.append(path)
    return tuple(paths)


def _side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((pictures[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)]
    return np.hstack(row[:-1])


def _page(result: DemoResult) -> str:
    """Writes one page that needs no other file."""
    benchmark = result.benchmark
    pictures = "\n".join(
        f'<img alt="{path.stem}" src="{_inline(path.read_bytes())}">'
        for path in result.overlays
    )
    tables = "\n\n".join(
        format_report(report) for report in (result.float_report, result.int8_report)
    )
    machine = ", ".join(f"{key}: {value}" for key, value in benchmark.machine.items())
    return _PAGE.format(
        scenes=counted(result.int8_report.num_images, "scene"),
        pq_float=100 * result.float_report.pq.pq,
        pq_int8=100 * result.int8_report.pq.pq,
        miou_float=100 * result.float_report.miou.miou,
        miou_int8=100 * result.int8_report.miou.miou,
        megabytes=result.conversion.file_bytes / 1e6,
        tables=html.escape(tables),
        machine=html.escape(machine),
        latency=_inline(encode_png(draw_plot(benchmark))),
        pictures=pictures,
    )


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>deeplab2-edge demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto;
       padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .3em 1.2em; border-bottom: 1px solid #ddd; text-align: right; }}
pre {{ overflow-x: auto; background: #f6f6f6; padding: 1em; font-size: 13px; }}
img {{ max-width: 100%; display: block; margin: .5em 0; }}
small {{ color: #666; }}
</style>
<h1>MobileNetV3 Panoptic-DeepLab, float against int8</h1>
<p>{scenes} of the synthetic street world that no training has seen.</p>
<table>
<tr><th></th><th>PQ</th><th>mIoU</th></tr>
<tr><td>float checkpoint</td><td>{pq_float:.2f}</td><td>{miou_float:.2f}</td></tr>
<tr><td>int8 file, {megabytes:.2f} MB</td><td>{pq_int8:.2f}</td><td>{miou_int8:.2f}
</td></tr>
</table>
<h2>Scene, ground truth, int8 prediction</h2>
{pictures}
<h2>Latency on this machine</h2>
<img alt="latency per stage" src="{latency}">
<p><small>{machine}</small></p>
<h2>Per class</h2>
<pre>{tables}</pre>
</html>
"""
