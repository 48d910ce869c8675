"""Evaluation of predictions."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError
from deeplab2_edge.metrics import evaluate_predictions, format_report

STREET = get_dataset("synthetic_street")


@dataclass(frozen=True)
class Sample:
    name: str
    panoptic: NDArray[np.int32] | None

    def load_image(self) -> NDArray[np.uint8]:
        return np.zeros((4, 6, 3), np.uint8)

    def load_panoptic(self) -> NDArray[np.int32] | None:
        return self.panoptic


@dataclass(frozen=True)
class Maps:
    panoptic: NDArray[np.int32]

    @property
    def semantic(self) -> NDArray[np.int32]:
        return np.minimum(self.panoptic // 1000, 10)


def road_and_car() -> NDArray[np.int32]:
    panoptic = np.full((4, 6), 3000, np.int32)
    panoptic[:2, :3] = 8001
    return panoptic


def test_report_of_a_model_that_misses_the_car() -> None:
    predicted = Maps(np.full((4, 6), 3000, np.int32))
    report = evaluate_predictions(
        lambda image: predicted,
        [Sample("a", road_and_car())] * 2,
        STREET,
        label="test",
        quiet=True,
    )
    assert report.num_images == 2
    assert report.pq.pq_stuff == 0.75 and report.pq.pq_things == 0
    assert report.pq.pq == report.miou.miou == 0.375
    text = format_report(report)
    rows = [line.split() for line in text.splitlines()]
    assert ["car", "0.00", "0.00", "0.00", "0.00", "0", "0", "2"] in rows
    assert ["sky", "-", "-", "-", "-"] in rows
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["panoptic_quality"]["per_class"]["road"]["tp"] == 2
    assert document["mean_iou"]["per_class"] == {"road": 0.75, "car": 0.0}


def test_faults_name_the_image() -> None:
    def predict(image: NDArray[np.uint8]) -> Maps:
        return Maps(np.zeros((4, 5), np.int32))

    def evaluate(*samples: Sample) -> None:
        evaluate_predictions(predict, samples, STREET, label="test", quiet=True)

    with pytest.raises(DataError, match=r"b\.png: panoptic prediction has shape"):
        evaluate(Sample("b.png", road_and_car()))
    with pytest.raises(DataError, match=r"c\.png: this image has no labels"):
        evaluate(Sample("c.png", None))
    with pytest.raises(DataError, match="no images"):
        evaluate()


def test_average_precision_takes_the_scores_of_segments() -> None:
    @dataclass(frozen=True)
    class Segment:
        id: int
        score: float | None

    @dataclass(frozen=True)
    class Scored(Maps):
        segments: tuple[Segment, ...]

    segments = (Segment(3000, None), Segment(8001, 0.5))
    report = evaluate_predictions(
        lambda image: Scored(road_and_car(), segments),
        [Sample("a", road_and_car())],
        STREET,
        label="test",
        with_ap=True,
        quiet=True,
    )
    assert report.ap is not None and report.ap.ap == pytest.approx(1.0)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["average_precision"]["per_class"]["car"]["num_instances"] == 1
    assert "AP50 100.00" in format_report(report)
