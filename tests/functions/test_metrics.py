"""Metrics against stored outputs of the published system.

A few cases are committed; `make test-functions REFERENCE=DIR` runs every case of
`DIR/functions/metrics.npz`. Every stored output of a case is compared.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.metrics import (
    AveragePrecision,
    DepthError,
    DepthTrackingQuality,
    MeanIou,
    PanopticQuality,
    TrackingQuality,
    VideoPanopticQuality,
    segment_scores,
)

COMMITTED = Path(__file__).parents[1] / "golden" / "functions" / "metrics.npz"
_DEFAULT_REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
_REFERENCE = Path(os.environ.get("DEEPLAB2_EDGE_REFERENCE", _DEFAULT_REFERENCE))
REFERENCE = _REFERENCE / "functions" / "metrics.npz"
if _REFERENCE != _DEFAULT_REFERENCE and not REFERENCE.is_file():
    raise FileNotFoundError(f"{REFERENCE} is missing; it holds stored outputs")

Arrays = dict[str, NDArray[Any]]
RELATIVE, ABSOLUTE = 1e-5, 1e-6


def cases(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return sorted(
        {k.rpartition("/")[0] for k in np.load(path).files if k.endswith("/config")}
    )


def load(path: Path, case: str, part: str) -> Arrays:
    with np.load(path) as stored:
        prefix = f"{case}/{part}/"
        return {
            k[len(prefix) :]: stored[k] for k in stored.files if k.startswith(prefix)
        }


def maps(array: NDArray[Any]) -> NDArray[np.int64]:
    """Gives `[N, H, W]` also for a single image."""
    return array.reshape(-1, *array.shape[-2:]).astype(np.int64)


def quality_totals(metric: PanopticQuality) -> Arrays:
    result = metric.result()
    return {
        "total_iou": metric.iou_sum,
        "total_tp": metric.tp,
        "total_fn": metric.fn,
        "total_fp": metric.fp,
        "result_pq_sq_rq_tp_fn_fp": np.array(
            [result.pq, result.sq, result.rq, result.tp, result.fn, result.fp]
        ),
    }


def new_quality(config: dict[str, Any]) -> PanopticQuality:
    return PanopticQuality(
        config["num_classes"],
        config["ignored_label"],
        label_divisor=config["label_divisor"],
        thing_ids=(),
    )


def run_mean_iou(config: dict[str, Any], given: Arrays) -> Arrays:
    metric = MeanIou(config["num_classes"], config["ignore_label"])
    for images in zip(
        maps(given["gt_semantic"]), maps(given["pred_semantic"]), strict=True
    ):
        metric.update(*images)
    return {
        "mean_iou": np.array(metric.result().miou),
        "confusion": metric.confusion,
    }


def run_panoptic_quality(config: dict[str, Any], given: Arrays) -> Arrays:
    total, per_image = new_quality(config), []
    for images in zip(maps(given["gt"]), maps(given["pred"]), strict=True):
        one = new_quality(config)
        one.update(*images)
        per_image.append([one.iou_sum, one.tp, one.fn, one.fp])
        total.merge(one)
    return {**quality_totals(total), "per_image_iou_tp_fn_fp": np.array(per_image)}


def run_video_panoptic_quality(config: dict[str, Any], given: Arrays) -> Arrays:
    metric = VideoPanopticQuality(
        config["num_classes"],
        config["ignored_label"],
        label_divisor=config["label_divisor"],
        thing_ids=(),
        windows=(2,),
    )
    groundtruth, prediction = maps(given["gt"]), maps(given["pred"])
    for pair in config["pairs"]:
        metric.update_window(groundtruth[pair], prediction[pair])
    return quality_totals(metric.qualities[2])


def label_space(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_classes": config["num_classes"],
        "ignore_label": config.get("ignore_label", config.get("ignored_label")),
        "label_divisor": config["label_divisor"],
        "thing_ids": config["things_list"],
    }


def tracking_figures(metric: TrackingQuality) -> Arrays:
    result = metric.result()
    sequences = list(result.per_sequence.values())
    return {
        "STQ": np.array(result.stq),
        "AQ": np.array(result.aq),
        "IoU": np.array(result.sq),
        "STQ_per_seq": np.array([s.stq for s in sequences]),
        "AQ_per_seq": np.array([s.aq for s in sequences]),
        "IoU_per_seq": np.array([s.sq for s in sequences]),
        "Length_per_seq": np.array([s.num_frames for s in sequences]),
        "sequence_ids": np.array([str(name) for name in result.per_sequence]),
    }


def run_tracking_quality(config: dict[str, Any], given: Arrays) -> Arrays:
    metric = TrackingQuality(**label_space(config))
    weighted = TrackingQuality(**label_space(config))
    frames = zip(
        maps(given["gt"]), maps(given["pred"]), given["sequence"].tolist(), strict=True
    )
    weights = given.get("weights_variant")
    for groundtruth, prediction, sequence in frames:
        metric.update(groundtruth, prediction, sequence=sequence)
        if weights is not None:
            weighted.update(groundtruth, prediction, sequence=sequence, weights=weights)
    figures = tracking_figures(metric)
    whole = metric.result()
    figures["numpy_variant_STQ_AQ_IoU"] = np.array([whole.stq, whole.aq, whole.sq])
    for name in whole.per_sequence:
        figures[f"confusion_{name}"] = metric.confusion(name)
    if weights is not None:
        result = weighted.result()
        figures["weighted_STQ_AQ_IoU"] = np.array([result.stq, result.aq, result.sq])
    return figures


def run_depth_tracking_quality(config: dict[str, Any], given: Arrays) -> Arrays:
    thresholds = config["depth_threshold"]
    metric = DepthTrackingQuality(**label_space(config), thresholds=thresholds)
    for groundtruth, prediction, true_depth, predicted_depth, sequence in zip(
        maps(given["gt"]),
        maps(given["pred"]),
        given["depth_gt"],
        given["depth_pred"],
        given["sequence"].tolist(),
        strict=True,
    ):
        metric.update(
            groundtruth, prediction, true_depth, predicted_depth, sequence=sequence
        )
    result = metric.result()
    figures = tracking_figures(metric.tracking)
    figures |= {"DSTQ": np.array(result.dstq), "DQ": np.array(result.dq)}
    for threshold in thresholds:
        dstq, dq = result.per_threshold[threshold]
        per_sequence = [s[threshold] for s in result.per_sequence.values()]
        figures |= {
            f"DSTQ@{threshold}": np.array(dstq),
            f"DQ@{threshold}": np.array(dq),
            f"DSTQ_per_seq@{threshold}": np.array([d for d, _ in per_sequence]),
            f"DQ_per_seq@{threshold}": np.array([d for _, d in per_sequence]),
        }
    for name in result.tracking.per_sequence:
        figures[f"confusion_{name}"] = metric.tracking.confusion(name)
    return figures


def run_depth(config: dict[str, Any], given: Arrays) -> Arrays:
    total = DepthError(inlier_threshold=config["inlier_threshold"])
    per_image = []
    for true, predicted in zip(given["depth_gt"], given["depth_pred"], strict=True):
        one = DepthError(inlier_threshold=config["inlier_threshold"])
        one.update(true, predicted)
        per_image.append(one.sums[:4])
        total.merge(one)
    result = total.result()
    figures = [result.silog, result.sq_rel, result.abs_rel, result.inlier]
    return {
        "silog_sqrel_absrel_inlier": np.array(figures),
        "per_image": np.stack(per_image, axis=1),
    }


def semantic_scores(given: Arrays, at: int) -> NDArray[np.float32]:
    coarse = given.get("semantic_probs_unnormalised_10x10")
    if coarse is None:
        (name,) = [name for name in given if name.startswith("semantic")]
        return given[name][at]
    fine = coarse[at].repeat(10, axis=0).repeat(10, axis=1)
    return fine / fine.sum(axis=-1, keepdims=True)


def run_average_precision(config: dict[str, Any], given: Arrays) -> Arrays:
    space = label_space(config)
    metric, figures = AveragePrecision(**space), {}
    for at, (groundtruth, prediction) in enumerate(
        zip(maps(given["gt"]), maps(given["pred"]), strict=True)
    ):
        scores = segment_scores(
            prediction,
            semantic_scores(given, at),
            given["instance_scores"][at],
            ignore_label=space["ignore_label"],
            label_divisor=space["label_divisor"],
        )
        metric.update(groundtruth, prediction, scores, is_crowd=given["is_crowd"][at])
        figures[f"img{at}.instance_labels"] = np.array(list(scores))
        figures[f"img{at}.combined_scores"] = np.array(list(scores.values()))
        values, first = np.unique(groundtruth, return_index=True)
        is_instance = np.isin(values // space["label_divisor"], space["thing_ids"])
        labels = values[is_instance][np.argsort(first[is_instance])]
        figures[f"img{at}.gt_labels"] = labels
        boxes = []
        for label in labels:
            ys, xs = np.nonzero(groundtruth == label)
            boxes.append([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1])
        figures[f"img{at}.gt_boxes_yxyx"] = np.array(boxes)
    figures["coco12"] = np.array(metric.result().coco_summary())
    return figures


def runner(config: dict[str, Any], given: Arrays) -> Callable[..., Arrays]:
    """Chooses what to run by the settings of a case."""
    if "inlier_threshold" in config:
        return run_depth
    if "depth_threshold" in config:
        return run_depth_tracking_quality
    if "pairs" in config:
        return run_video_panoptic_quality
    if "things_list" in config and "sequence" in given:
        return run_tracking_quality
    if "things_list" in config and "is_crowd" in given:
        return run_average_precision
    if "ignored_label" in config and "label_divisor" in config:
        return run_panoptic_quality
    if set(config) == {"ignore_label", "num_classes"}:
        return run_mean_iou
    raise AssertionError(f"no metric is known for the settings {sorted(config)}")


def check(path: Path, case: str) -> None:
    config = json.loads(str(np.load(path)[f"{case}/config"]))
    given, stored = load(path, case, "in"), load(path, case, "out")
    computed = runner(config, given)(config, given)
    assert stored and set(stored) <= set(computed), set(stored) - set(computed)
    for name, expected in stored.items():
        if expected.dtype.kind in "US":
            np.testing.assert_array_equal(computed[name], expected, err_msg=name)
            continue
        np.testing.assert_allclose(
            computed[name], expected, rtol=RELATIVE, atol=ABSOLUTE, err_msg=name
        )


@pytest.mark.parametrize("case", cases(COMMITTED))
def test_metrics_equal_the_committed_outputs(case: str) -> None:
    check(COMMITTED, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(REFERENCE) or ["none"])
def test_metrics_equal_all_stored_outputs(case: str) -> None:
    if not REFERENCE.is_file():
        pytest.skip(f"{REFERENCE} is missing; set DEEPLAB2_EDGE_REFERENCE")
    check(REFERENCE, case)


def test_every_kind_of_case_is_committed() -> None:
    kinds = {
        runner(
            json.loads(str(np.load(COMMITTED)[f"{case}/config"])),
            load(COMMITTED, case, "in"),
        )
        for case in cases(COMMITTED)
    }
    assert len(kinds) == 7


def test_unknown_settings_are_no_success() -> None:
    with pytest.raises(AssertionError, match="no metric is known"):
        runner({"num_classes": 3, "something": 1}, {})
