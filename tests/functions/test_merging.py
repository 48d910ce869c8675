"""Post-processing against stored outputs of the published system."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.panoptic import (
    Heads,
    IouTracker,
    IouTrackingSettings,
    MaskMaps,
    MaskSettings,
    MaskwiseSettings,
    MergeSettings,
    MotionSettings,
    MotionTracker,
    PanopticMaps,
    decode_masks,
    merge_heads,
    merge_semantic_and_instance,
    merge_two_frames,
    stitch,
)
from tests.functions import reference

# Probabilities are summed in another order.
SCORE_TOLERANCE = 1e-6
HEATMAP_TOLERANCE = 1e-7

# A CPU numbers instances in no defined order, hence the second.
OPERATOR_OUTPUTS = "compiled_rule_ascending_ids", "compiled_cpu_op_canonical"


@pytest.mark.parametrize("case", reference.params("merging"))
def test_maps_equal_the_published_ones(case: reference.Case) -> None:
    for fields, check in CHECKS:
        if fields <= case.config.keys() | case.inputs.keys():
            check(case)
            return
    pytest.fail(f"{case.name} is of no known kind: {sorted(case.config)}")


def check_merge(case: reference.Case) -> None:
    semantic, instance = case.inputs["semantic"], case.inputs["instance"]
    assert case.outputs.keys() <= {"pure_tf", *OPERATOR_OUTPUTS}
    if "pure_tf" in case.outputs:
        same(merged(case, semantic, instance, "tf"), case.outputs["pure_tf"])
    check_operator(case, semantic, instance)


def check_operator(
    case: reference.Case, semantic: NDArray[Any], instance: NDArray[Any]
) -> None:
    found = merged(case, semantic, instance, "op")
    canonical = [in_order_of_appearance(case, panoptic) for panoptic in found]
    for name, maps in zip(OPERATOR_OUTPUTS, (found, np.stack(canonical)), strict=True):
        if name in case.outputs:
            same(maps, case.outputs[name])


def merged(
    case: reference.Case, semantic: NDArray[Any], instance: NDArray[Any], rules: Any
) -> NDArray[np.int32]:
    config = case.config
    maps = [
        merge_semantic_and_instance(
            classes.astype(np.int32),
            ids.astype(np.int32),
            thing_ids=config["thing_class_ids"],
            label_divisor=config["label_divisor"],
            stuff_area_limit=config["stuff_area_limit"],
            void_label=config["void_label"],
            merge_semantics=rules,
        )
        for classes, ids in zip(semantic, instance, strict=True)
    ]
    return np.stack(maps)


def in_order_of_appearance(
    case: reference.Case, panoptic: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Numbers the instances of each class as they first appear."""
    divisor, result = case.config["label_divisor"], panoptic.copy()
    numbers: dict[int, int] = {}
    for panoptic_id in dict.fromkeys(panoptic.ravel().tolist()):
        if panoptic_id % divisor:
            class_id = panoptic_id // divisor
            numbers[class_id] = numbers.get(class_id, 0) + 1
            result[panoptic == panoptic_id] = class_id * divisor + numbers[class_id]
    return result


def merge_settings(case: reference.Case) -> MergeSettings:
    return MergeSettings(
        thing_ids=case.config["thing_class_ids"],
        label_divisor=case.config["label_divisor"],
        ignore_label=case.config["void_label"],
        center_score_threshold=case.config["center_score_threshold"],
        nms_kernel=case.config["nms_kernel"],
        keep_k_centers=case.config["keep_k_centers"],
        stuff_area_limit=case.config["stuff_area_limit"],
    )


def check_panoptic_deeplab(case: reference.Case) -> None:
    inputs, settings = case.inputs, merge_settings(case)
    assert len(inputs["semantic_probs"]) == 1
    canvas = inputs["semantic_probs"].shape[1:3]
    maps = merge_heads(
        inputs["semantic_probs"][0],
        inputs["center_heatmap"][0, ..., 0],
        inputs["offset_map"][0],
        canvas=canvas,
        settings=settings,
    )
    if case.name.startswith("informational_"):
        # There an arbitrary number of centers is kept; here the best, of equal ones
        # the first.
        assert len(maps.centers_yx) == settings.keep_k_centers
        assert len(case.outputs["centers_yx"]) < settings.keep_k_centers
        same(maps.semantic, case.outputs["semantic_pred"][0])
        return
    check_panoptic_maps(maps, case)
    check_operator(case, case.outputs["semantic_pred"], case.outputs["instance_pred"])


def check_panoptic_maps(maps: PanopticMaps, case: reference.Case) -> None:
    outputs = case.outputs
    heat = np.zeros(maps.semantic.shape, np.float32)
    heat[tuple(maps.centers_yx.T)] = maps.center_scores
    same(maps.centers_yx, outputs["centers_yx"])
    same(maps.semantic, outputs["semantic_pred"][0])
    same(maps.instance, outputs["instance_pred"][0])
    same(maps.panoptic, outputs["panoptic_pred"][0])
    same(heat, outputs["instance_center_pred"][0])
    same(maps.instance_scores, outputs["instance_scores"][0])


def check_masks(case: reference.Case) -> None:
    masks, classes = (
        case.inputs[name]
        for name in ("pixel_space_mask_logits", "transformer_class_logits")
    )
    assert masks.shape[1] == 1, "one frame"
    settings = mask_settings(case.config)
    for index in range(len(masks)):
        maps = decode_masks(
            masks[index, 0],
            classes[index],
            canvas=tuple(case.config["image_shape"]),
            settings=settings,
        )
        expected = {name: x[index, 0] for name, x in case.outputs.items()}
        check_mask_maps(maps, expected)


def mask_settings(config: dict[str, Any]) -> MaskSettings:
    is_maskwise = config["transformer_post_processing"] == "maskwise"
    assert is_maskwise or config["transformer_post_processing"] == "pixelwise"
    return MaskSettings(
        thing_ids=config["thing_class_ids"],
        label_divisor=config["label_divisor"],
        ignore_label=config["void_label"],
        transformer_class_confidence_threshold=config[
            "transformer_class_confidence_threshold"
        ],
        pixel_confidence_threshold=config["pixel_confidence_threshold"],
        stuff_area_limit=config["stuff_area_limit"],
        thing_area_limit=config["thing_area_limit"],
        maskwise=MaskwiseSettings(**config["maskwise_postprocessing_config"])
        if is_maskwise
        else None,
    )


def check_mask_maps(maps: MaskMaps, expected: dict[str, NDArray[Any]]) -> None:
    found = {
        "panoptic": maps.panoptic,
        # There the width can be cut in pieces to save memory, with the same result.
        "pieces2_panoptic": maps.panoptic,
        "mask_id_plus_one": maps.mask_id,
        "semantic": maps.mask_semantic,
        "semantic_from_unthresholded_pass": maps.semantic,
    }
    scores = {
        "instance_score": maps.instance_scores,
        "semantic_score": maps.semantic_scores,
    }
    for name, x in expected.items():
        if name in scores:
            np.testing.assert_allclose(
                scores[name], x, rtol=0, atol=SCORE_TOLERANCE, err_msg=name
            )
        else:
            same(found[name], x)


def check_motion(case: reference.Case) -> None:
    config, outputs = case.config, dict(case.outputs)
    tracker = MotionTracker(
        MotionSettings(
            thing_ids=config["thing_class_ids"],
            label_divisor=config["label_divisor"],
            heatmap_sigma=config["heatmap_sigma"],
            keep_frames=config["keep_frames_sigma"],
        )
    )
    frames = zip(case.inputs["panoptic"], case.inputs["frame_offsets"], strict=True)
    for index, (panoptic, offsets) in enumerate(frames):
        maps = tracker.update(panoptic, offsets)
        same(maps.centers, outputs.pop(f"t{index}.centers"))
        same(maps.panoptic, outputs.pop(f"t{index}.panoptic"))
        same(maps.tracks, outputs.pop(f"t{index}.track_list"))
        assert tracker.next_id == outputs.pop(f"t{index}.next_id")
        total_and_peak = (maps.heatmap.sum(dtype=np.float64), maps.heatmap.max())
        np.testing.assert_allclose(
            total_and_peak, outputs.pop(f"t{index}.heatmap_sum"), rtol=1e-6
        )
        if f"t{index}_heatmap_full" in outputs:
            np.testing.assert_allclose(
                maps.heatmap,
                outputs.pop(f"t{index}_heatmap_full"),
                rtol=0,
                atol=HEATMAP_TOLERANCE,
            )
    assert not outputs


def check_iou_tracker(case: reference.Case) -> None:
    config = case.config
    tracker = IouTracker(
        IouTrackingSettings(
            thing_ids=config["classes_to_track"],
            label_divisor=config["label_divisor"],
            iou_threshold=config["iou_threshold"],
            max_missed_frames=config["sigma"],
            track_divisor=config["label_divisor"],
        )
    )
    assert len(case.outputs) == len(case.inputs["frames"])
    for index, frame in enumerate(case.inputs["frames"]):
        same(tracker.update(frame).panoptic, case.outputs[f"t{index}"])


def check_stitching(case: reference.Case) -> None:
    divisor = case.config["label_divisor"]
    offsets = {
        "tf_stitched": None,
        "numpy_stitched_half": divisor // 2,
        "numpy_stitched_offset128": 128,
    }
    remap = case.outputs["remap_next_to_concat"].reshape(-1, 2)
    for name in case.outputs.keys() - {"remap_next_to_concat"}:
        maps = stitch(
            case.inputs["concat_panoptic"].astype(np.int32),
            case.inputs["next_panoptic"].astype(np.int32),
            label_divisor=divisor,
            id_offset=offsets[name],
        )
        same(maps.panoptic, case.outputs[name])
        same(maps.matches, remap)


def check_two_frames(case: reference.Case) -> None:
    inputs = {name: x[0] for name, x in case.inputs.items()}
    maps = merge_two_frames(
        Heads(
            inputs["semantic_probs"],
            inputs["center_heatmap"][..., 0],
            inputs["offset_map"],
        ),
        inputs["next_offset_map"],
        Heads(
            inputs["next_semantic_probs"],
            inputs["next_center_heatmap"][..., 0],
            inputs["next_own_offset_map"],
        ),
        canvas=inputs["semantic_probs"].shape[:2],
        settings=merge_settings(case),
        id_offset=case.config["id_offset"],
    )
    found = {
        "panoptic_pred": maps.current.panoptic,
        "concat_next_panoptic_pred": maps.concat_next,
        "next_panoptic_before_stitch": maps.next_frame.panoptic,
        "next_panoptic_pred": maps.next_panoptic,
    }
    for name, expected in case.outputs.items():
        same(found[name], expected[0])


def same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(found, expected)


# What a kind of case must have; the first that fits.
CHECKS: tuple[tuple[set[str], Callable[[reference.Case], None]], ...] = (
    ({"next_offset_map"}, check_two_frames),
    ({"center_heatmap"}, check_panoptic_deeplab),
    ({"semantic", "instance"}, check_merge),
    ({"transformer_class_logits"}, check_masks),
    ({"frame_offsets"}, check_motion),
    ({"concat_panoptic"}, check_stitching),
    ({"classes_to_track"}, check_iou_tracker),
)
