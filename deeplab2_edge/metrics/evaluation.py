"""Evaluation of predictions on labeled images, the same for every kind of model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import DataError
from deeplab2_edge.metrics.average_precision import (
    AveragePrecision,
    AveragePrecisionResult,
)
from deeplab2_edge.metrics.mean_iou import MeanIou, MeanIouResult
from deeplab2_edge.metrics.official import OfficialWriter
from deeplab2_edge.metrics.panoptic_quality import (
    PanopticQuality,
    PanopticQualityResult,
)
from deeplab2_edge.progress import progress
from deeplab2_edge.samples import name_in_dataset
from deeplab2_edge.wording import counted


class LabeledSample(Protocol):
    """Is an image with its labels, loaded when asked for."""

    @property
    def name(self) -> str:
        """Name for messages."""

    def load_image(self) -> NDArray[np.uint8]:
        """Loads the `[H, W, 3]` RGB image."""

    def load_panoptic(self) -> NDArray[np.int32] | None:
        """Loads the `[H, W]` panoptic ids, None where there are no labels."""


class Prediction(Protocol):
    """Is what a model says about one image, at the size of that image."""

    @property
    def panoptic(self) -> NDArray[np.int32]:
        """`[H, W]` panoptic ids."""

    @property
    def semantic(self) -> NDArray[Any]:
        """`[H, W]` class ids."""


@dataclass(frozen=True)
class EvaluationReport:
    """Holds the figures of one model on one set of images, as fractions.

    Attributes:
        label: What was evaluated.
        dataset: Name of the data set.
        num_images: How many images were evaluated.
        class_names: Names of the classes.
        thing_ids: Classes with instances.
        pq: Panoptic quality.
        miou: Mean IoU of the semantic maps.
        ap: Average precision of instances, None if it was not asked for.
    """

    label: str
    dataset: str
    num_images: int
    class_names: tuple[str, ...]
    thing_ids: tuple[int, ...]
    pq: PanopticQualityResult
    miou: MeanIouResult
    ap: AveragePrecisionResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives plain JSON values; classes go by name, NaN becomes null."""
        document: dict[str, Any] = {
            "panoptic_quality": self.pq.to_json(),
            "mean_iou": self.miou.to_json(),
        }
        if self.ap is not None:
            document["average_precision"] = self.ap.to_json()
        for figures in document.values():
            figures["per_class"] = {
                self.class_names[class_id]: value
                for class_id, value in figures["per_class"].items()
            }
        return {
            "label": self.label,
            "dataset": self.dataset,
            "num_images": self.num_images,
            **document,
        }

    def format(self) -> str:
        """See `format_report`."""
        return format_report(self)


def evaluate_predictions(
    predict: Callable[[NDArray[np.uint8]], Prediction],
    samples: Sequence[LabeledSample],
    info: DatasetInfo,
    *,
    label: str,
    with_ap: bool = False,
    quiet: bool = False,
    writer: OfficialWriter | None = None,
) -> EvaluationReport:
    """Runs a model on labeled images and compares its maps with the labels.

    Args:
        predict: Takes a `[H, W, 3]` uint8 RGB image of any size and gives maps of the
            same size.
        samples: Images with labels.
        info: The classes of labels and predictions.
        label: What is evaluated, for the progress line and the report.
        with_ap: Whether to measure average precision too; predictions then have
            `segments`, each with `id` and, if a thing, `score`.
        quiet: Whether to show no progress.
        writer: Gets every prediction.

    Raises:
        DataError: If there are no samples, one has no labels, or labels or
            predictions do not fit. The message names the sample.
    """
    if not samples:
        raise DataError("there is nothing to evaluate: the data set has no images")
    space = info.num_classes, info.ignore_label
    divisor, things = info.label_divisor, info.thing_ids
    pq = PanopticQuality(*space, label_divisor=divisor, thing_ids=things)
    ap = AveragePrecision(*space, label_divisor=divisor, thing_ids=things)
    miou = MeanIou(*space)
    for sample in progress(samples, total=len(samples), label=label, quiet=quiet):
        groundtruth = sample.load_panoptic()
        if groundtruth is None:
            raise DataError(
                f"{sample.name}: this image has no labels; evaluation needs them"
            )
        prediction = predict(sample.load_image())
        try:
            pq.update(groundtruth, prediction.panoptic)
            miou.update(groundtruth // info.label_divisor, prediction.semantic)
            if with_ap:
                ap.update(groundtruth, prediction.panoptic, _scores(prediction))
        except DataError as error:
            raise DataError(f"{sample.name}: {error}") from error
        if writer is not None:
            writer.add(name_in_dataset(sample), prediction.panoptic)
    return EvaluationReport(
        label=label,
        dataset=info.name,
        num_images=len(samples),
        class_names=info.class_names,
        thing_ids=info.thing_ids,
        pq=pq.result(),
        miou=miou.result(),
        ap=ap.result() if with_ap else None,
    )


def format_report(report: EvaluationReport) -> str:
    """Formats a report as a table in percent, one line per class.

    Classes that neither labels nor predictions contain show dashes.
    """
    pq, names = report.pq, report.class_names
    width = max(len(name) for name in (*names, "all classes"))
    lines = [
        f"{report.label}: {report.dataset}, {counted(report.num_images, 'image')}",
        f"{'':{width}}     PQ     SQ     RQ    IoU     TP     FP     FN",
    ]
    for name, figures in (
        ("all classes", (pq.pq, pq.sq, pq.rq, report.miou.miou)),
        ("things", (pq.pq_things, pq.sq_things, pq.rq_things)),
        ("stuff", (pq.pq_stuff, pq.sq_stuff, pq.rq_stuff)),
    ):
        lines.append(f"{name:{width}}" + "".join(map(_percent, figures)))
    for class_id, name in enumerate(names):
        quality = pq.per_class.get(class_id)
        iou = report.miou.per_class.get(class_id, math.nan)
        line = f"{name:{width}}"
        if quality is None:
            line += "".join(map(_percent, (math.nan,) * 3 + (iou,)))
        else:
            line += "".join(map(_percent, (quality.pq, quality.sq, quality.rq, iou)))
            line += "".join(f"{n:7d}" for n in (quality.tp, quality.fp, quality.fn))
        lines.append(line)
    if report.ap is not None:
        ap = report.ap
        shown = {
            "AP": ap.ap,
            "AP50": ap.ap50,
            "AP75": ap.ap75,
            "small": ap.ap_small,
            "medium": ap.ap_medium,
            "large": ap.ap_large,
        }
        words = (f"  {key}{_percent(value)}" for key, value in shown.items())
        lines.append(f"{'instances':{width}}{''.join(words)}")
    return "\n".join(lines)


def _scores(prediction: Prediction) -> dict[int, float]:
    segments = getattr(prediction, "segments", ())
    return {s.id: s.score for s in segments if s.score is not None}


def _percent(fraction: float) -> str:
    return "      -" if math.isnan(fraction) else f"{100 * fraction:7.2f}"
