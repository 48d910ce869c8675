"""The comparison of two engines."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.verification import (
    Verification,
    format_verification,
    verify,
)
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import ConversionError, DataError, UsageError
from deeplab2_edge.model_file import ModelMetadata
from tests.runtime.tiny_model import CANVAS, tiny_metadata

pytestmark = pytest.mark.tf

CAR, ROAD = 2, 1
CLASSES = DatasetInfo(
    name="tiny",
    num_classes=3,
    ignore_label=255,
    label_divisor=1000,
    thing_ids=(CAR,),
    class_names=("sky", "road", "car"),
    colors=((70, 130, 180), (128, 64, 128), (0, 0, 142)),
    split_sizes={},
)


@dataclass(frozen=True)
class Picture:
    """Is an image whose red channel is the class; labels say the same or nothing."""

    name: str = "picture"
    has_label: bool = True

    def load_image(self) -> NDArray[np.uint8]:
        image = np.zeros((*CANVAS, 3), np.uint8)
        image[32:] = ROAD
        image[36:52, 20:61] = CAR
        return image

    def load_panoptic(self) -> NDArray[np.int32] | None:
        if not self.has_label:
            return None
        classes = self.load_image()[..., 0].astype(np.int32)
        return classes * 1000 + (classes == CAR)


@dataclass(frozen=True)
class ColorEngine:
    """Reads classes off the canvas; sees one center, at the middle of the car."""

    metadata: ModelMetadata = dataclasses.field(default_factory=tiny_metadata)
    logit_noise: float = 0.0
    extra_center: bool = False
    offset_error: float = 0.0
    blind_to_cars: bool = False

    @property
    def is_integer(self) -> bool:
        return False

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        canvas = inputs[keys.IMAGE]
        classes = canvas[::4, ::4, 0].astype(int)
        if self.blind_to_cars:
            classes = np.where(classes == CAR, ROAD, classes)
        logits = np.eye(3, dtype=np.float32)[classes]
        logits[0, 0, 0] += self.logit_noise
        heat = np.zeros(classes.shape, np.float32)
        heat[11, 10] = 0.75
        if self.extra_center:
            heat[9, 5] = 0.5
        offsets = np.zeros((*classes.shape, 2), np.float32)
        offsets[9, 6, 0] = self.offset_error
        return {
            keys.SEMANTIC_LOGITS: logits,
            keys.CENTER_HEATMAP: heat[..., np.newaxis],
            keys.OFFSET_MAP: offsets,
        }


def compare(converted: ColorEngine, samples: list[Picture]) -> Verification:
    return verify(
        ColorEngine(),
        converted,
        samples,
        location="pictures",
        labels_of=CLASSES,
        quiet=True,
    )


def test_equal_engines_agree_in_everything() -> None:
    report = compare(ColorEngine(), [Picture("a"), Picture("b")])
    assert report.image_names == ("a", "b")
    assert report.class_agreement == report.panoptic_agreement == 1.0
    assert report.mask_iou == report.pq.pq == report.miou.miou == 1.0
    assert report.worst_offset_px == 0.0
    assert report.num_centers == (2, 2)
    assert report.heads[keys.SEMANTIC_LOGITS].max_error == 0.0
    assert report.heads[keys.SEMANTIC_LOGITS].snr_db == 200.0
    assert report.accuracy is not None
    # Heads at stride 4 miss the borders of the labels, both alike.
    assert 0.8 < report.accuracy.pq.pq < 1.0
    assert report.drop("pq") == report.drop("miou") == 0.0


def test_head_errors_have_their_units() -> None:
    report = compare(
        ColorEngine(logit_noise=0.5, offset_error=2.0, extra_center=True), [Picture()]
    )
    assert report.heads[keys.SEMANTIC_LOGITS].max_error == 0.5
    # The largest logit of the float model is 1.
    assert report.heads[keys.SEMANTIC_LOGITS].relative_error == 0.5
    # 561 pixels with one logit of 1 each against a noise of 0.5.
    assert report.heads[keys.SEMANTIC_LOGITS].snr_db == pytest.approx(
        10 * np.log10(561 / 0.25)
    )
    assert report.heads[keys.OFFSET_MAP].max_error == 2.0
    assert report.worst_offset_px == 8.0  # 2 head pixels of 4 canvas pixels
    assert report.num_centers == (1, 2)


def test_lost_objects_count_against_labels() -> None:
    report = compare(ColorEngine(blind_to_cars=True), [Picture()])
    # Of sky, road and car one is lost whole, and the road gains its pixels.
    assert report.pq.per_class[CAR].fn == 1
    assert report.mask_iou < 0.67
    assert report.drop("pq") > 25
    assert report.drop("miou") > 25
    assert report.panoptic_agreement < 1


def test_without_labels_the_float_model_is_the_measure() -> None:
    samples = [Picture(has_label=False)]
    report = compare(ColorEngine(blind_to_cars=True), samples)
    assert report.accuracy is None
    assert report.num_labeled == 0
    assert report.drop("pq") == pytest.approx(100 * (1 - report.pq.pq))
    assert "against labels" not in format_verification(report, "int8")


def test_heatmap_counts_between_0_and_1_only() -> None:
    @dataclass(frozen=True)
    class Unbounded(ColorEngine):
        def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            heads = super().run(inputs)
            heads[keys.CENTER_HEATMAP][0, 0] = -3.0
            return heads

    report = compare(Unbounded(), [Picture()])
    assert report.heads[keys.CENTER_HEATMAP].max_error == 0.0


def test_table_and_json_hold_the_figures() -> None:
    report = compare(ColorEngine(logit_noise=0.5), [Picture()])
    assert len(report.inputs_sha256) == 64
    table = format_verification(report, "int8")
    assert "int8 against float, 1 image of pictures" in table
    assert "semantic_logits" in table
    assert "against labels (1)" in table
    document = json.loads(json.dumps(report.to_json()))
    assert document["heads"]["semantic_logits"]["max_error"] == 0.5
    assert document["converted"]["mean_iou"]["miou"] is not None
    assert document["labeled_images"] == 1


def test_labels_of_unknown_classes_name_the_sample() -> None:
    @dataclass(frozen=True)
    class Odd(Picture):
        def load_panoptic(self) -> NDArray[np.int32]:
            return np.full(CANVAS, 77_000, np.int32)

    with pytest.raises(DataError, match="odd one: .*77"):
        compare(ColorEngine(), [Odd("odd one")])


def test_engines_of_other_classes_cannot_be_compared() -> None:
    other = tiny_metadata(class_names=("a", "b", "c"))
    with pytest.raises(UsageError, match="equal canvas and classes"):
        compare(ColorEngine(metadata=other), [Picture()])


def test_values_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ConversionError, match="odd: the converted model.*not finite"):
        compare(ColorEngine(logit_noise=float("nan")), [Picture("odd")])


def test_no_images_is_an_error() -> None:
    with pytest.raises(DataError, match="pictures: no images"):
        compare(ColorEngine(), [])


def test_equal_images_have_equal_digests() -> None:
    one, two, three = (
        compare(ColorEngine(), samples).inputs_sha256
        for samples in ([Picture("a")], [Picture("b")], [Picture("a"), Picture("a")])
    )
    assert one == two != three


def test_lines_that_do_not_apply_are_left_out() -> None:
    report = compare(ColorEngine(), [Picture()])
    table = format_verification(report, "int8")
    assert "instance centers" in table and "worst offset" in table
    bare = dataclasses.replace(
        report,
        num_centers=None,
        worst_offset_px=None,
        has_instances=False,
        heads={"transformer_class_logits": report.heads[keys.SEMANTIC_LOGITS]},
    )
    table = format_verification(bare, "int8")
    for word in ("instance centers", "worst offset", "PQ", "things"):
        assert word not in table
    assert "mIoU, float as ground truth" in table
    header, row = table.splitlines()[1:3]
    assert len(header) == len(row) and row.startswith("transformer_class_logits  ")
