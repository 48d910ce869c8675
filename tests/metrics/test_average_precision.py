"""Average precision of instances."""

import contextlib
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.metrics import AveragePrecision, segment_scores
from tests.metrics.scenes import disturbed, random_scene

Image = tuple[NDArray[np.int64], NDArray[np.int64], dict[int, float]]


def precision(num_classes: int = 4) -> AveragePrecision:
    return AveragePrecision(num_classes, 255, label_divisor=1000, thing_ids=(1, 2))


def random_images(seed: int, count: int, *, large: bool = False) -> list[Image]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        size = (260, 320) if large else (60, 80)
        scene = random_scene(rng, size=size, num_instances=12)
        found = disturbed(rng, scene)
        labels = np.unique(found).tolist()
        # Few different values, so that ties occur.
        images.append((scene, found, {i: int(rng.integers(1, 9)) / 8 for i in labels}))
    return images


def test_one_found_and_one_lost_instance() -> None:
    groundtruth = np.zeros((10, 40), np.int64)
    groundtruth[:, :10], groundtruth[:, 20:30] = 1001, 1002
    prediction = np.zeros_like(groundtruth)
    prediction[:, :9] = 1005  # IoU 0.9
    metric = precision()
    metric.update(groundtruth, prediction, {1005: 0.5})
    result = metric.result()
    half = 51 / 101  # recall points up to and with 0.5
    assert result.ap50 == pytest.approx(half)
    assert result.ap == pytest.approx(0.9 * half)
    assert result.ar_100 == pytest.approx(0.45)
    assert result.per_class[1].num_instances == 2 and list(result.per_class) == [1]
    assert math.isnan(result.ap_large) and result.coco_summary()[5] == -1


def test_crowds_need_not_be_found_and_excuse_what_lies_in_them() -> None:
    groundtruth = np.zeros((10, 40), np.int64)
    groundtruth[:, :10], groundtruth[:, 20:] = 1001, 1000
    prediction = groundtruth.copy()
    prediction[:, 20:30], prediction[:, 30:] = 1002, 1003
    metric = precision()
    metric.update(groundtruth, prediction, {1001: 0.1, 1002: 0.9, 1003: 0.8})
    assert metric.result().ap == pytest.approx(1.0)
    as_segment = precision()
    as_segment.update(
        groundtruth,
        prediction,
        {1001: 0.1, 1002: 0.9, 1003: 0.8},
        is_crowd=np.zeros((10, 40), bool),
    )
    assert as_segment.result().ap < 0.5


def test_without_detections_the_summary_is_zero_as_published() -> None:
    metric = precision()
    metric.update(np.full((4, 4), 1001), np.zeros((4, 4), int), {})
    assert metric.result().coco_summary() == (0.0,) * 12
    assert metric.result().ap == 0
    assert math.isnan(precision().result().ap)
    assert json.loads(json.dumps(precision().result().to_json()))["ap"] is None
    assert set(precision().result().to_json(detailed=False)) == {"ap", "ap50", "ap75"}


def test_scores_of_segments_in_the_order_of_appearance() -> None:
    panoptic = np.array([[2001, 2001, 0, 255000], [1001, 1001, 0, 255000]])
    semantic = np.zeros((2, 4, 3))
    semantic[..., 2], semantic[..., 1], semantic[..., 0] = 0.5, 0.25, 1.0
    instance = np.array([[0.2, 0.4, 0, 0], [1, 1, 0, 0]])
    scores = segment_scores(
        panoptic, semantic, instance, ignore_label=255, label_divisor=1000
    )
    assert list(scores) == [2001, 0, 1001]
    assert list(scores.values()) == pytest.approx([0.15, 0.0, 0.25])
    flat = segment_scores(
        panoptic, np.full((2, 4), 0.5), instance, ignore_label=255, label_divisor=1000
    )
    assert flat[1001] == pytest.approx(0.5)
    with pytest.raises(DataError, match="semantic scores are of 2 classes"):
        segment_scores(
            panoptic, semantic[..., :2], instance, ignore_label=255, label_divisor=1000
        )
    with pytest.raises(DataError, match="instance scores have shape"):
        segment_scores(
            panoptic, semantic, instance[:1], ignore_label=255, label_divisor=1000
        )


def test_merging_equals_one_accumulator() -> None:
    images = random_images(3, 6)
    whole, parts = precision(), [precision(), precision()]
    for at, image in enumerate(images):
        whole.update(*image)
        parts[at >= 3].update(*image)
    parts[0].merge(parts[1])
    assert parts[0].result().coco_summary() == whole.result().coco_summary()
    with pytest.raises(UsageError):
        whole.merge(precision(5))


def test_segments_without_a_score_are_refused() -> None:
    label = np.full((2, 2), 1001)
    for scores in ({}, {1001: math.nan}):
        with pytest.raises(DataError, match="segment 1001 .* has the score"):
            precision().update(label, label, scores)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_the_coco_tools(seed: int, large: bool) -> None:
    pytest.importorskip("pycocotools", reason="install pycocotools to compare with it")
    images = random_images(seed, 8, large=large)
    metric = precision()
    for image in images:
        metric.update(*image)
    expected = coco_figures(images)
    np.testing.assert_allclose(metric.result().coco_summary(), expected, atol=1e-12)


def coco_figures(images: list[Image]) -> list[float]:
    from pycocotools import mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image_id, (groundtruth, prediction, scores) in enumerate(images, start=1):
        for panoptic, target in ((groundtruth, annotations), (prediction, detections)):
            for label in np.unique(panoptic).tolist():
                if label // 1000 not in (1, 2):
                    continue
                segment = np.asfortranarray(panoptic == label, np.uint8)
                entry = {
                    "id": len(target) + 1,
                    "image_id": image_id,
                    "category_id": label // 1000,
                    "segmentation": mask.encode(segment),
                    "area": int(segment.sum()),
                    "iscrowd": int(label % 1000 == 0),
                }
                if target is detections:
                    entry |= {"score": scores[label], "iscrowd": 0}
                target.append(entry)
    truth, found = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for tool, content in ((truth, annotations), (found, detections)):
            tool.dataset = {
                "images": [
                    {"id": i, "height": truth_map.shape[0], "width": truth_map.shape[1]}
                    for i, (truth_map, _, _) in enumerate(images, start=1)
                ],
                "categories": [{"id": 1}, {"id": 2}],
                "annotations": content,
            }
            tool.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)
