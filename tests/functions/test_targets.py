"""Training and evaluation samples against stored outputs of the published system."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.config import (
    AugmentationOptions,
    DatasetOptions,
    PanopticCopyPasteOptions,
)
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.panoptic import gaussian_window
from tests.functions import reference
from tests.functions.forced_draws import ForcedDraws

tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
samples = pytest.importorskip("deeplab2_edge.train.data.samples")
records = pytest.importorskip("deeplab2_edge.records")

pytestmark = pytest.mark.tf

# Gaussians are computed in float32 in another order.
TOLERANCES = {"instance_center_gt": 1e-6, "image": 1e-6}


@pytest.mark.parametrize("case", reference.params("targets"))
def test_samples_equal_the_published_ones(case: reference.Case) -> None:
    if "kernel" in case.outputs:
        check_gaussian(case)
    elif "dataset_info" in case.config:
        check_sample(case)
    else:
        pytest.fail(f"{case.name} is of no known kind: {sorted(case.outputs)}")


def check_gaussian(case: reference.Case) -> None:
    sigma = case.config.get("sigma", case.name.removeprefix("gaussian_sigma"))
    window = gaussian_window(float(sigma))
    assert window.shape == (int(case.outputs["size"]),) * 2
    np.testing.assert_allclose(window, case.outputs["kernel"], rtol=0, atol=1e-7)


def check_sample(case: reference.Case) -> None:
    found = make_sample(case)
    assert set(found) == set(case.outputs)
    for name, expected in case.outputs.items():
        value = found[name]
        if expected.dtype.kind == "U":
            # The published decoder of single-camera videos drops the frame id.
            assert value.decode() == str(expected), name
            continue
        assert value.shape == expected.shape, name
        np.testing.assert_allclose(
            value.astype(np.float64),
            expected.astype(np.float64),
            rtol=0,
            atol=TOLERANCES.get(name, 0),
            err_msg=name,
        )


def make_sample(case: reference.Case) -> dict[str, Any]:
    config, info = case.config, dataset_info(case.config["dataset_info"])
    settings = samples.SampleSettings.from_options(
        dataset_options(case),
        info,
        has_instances=not config["options"].get("only_semantic_annotations"),
        has_depth=config["dataset_info"]["is_depth_dataset"],
    )
    if config["prev_center_noise"]:
        assert "disabled" in config["prev_center_noise"]
    settings = without_noise(settings, is_video=info.is_video)
    draws = ForcedDraws("lo", 0.0 if config["flip"] else 1.0)

    @tf.function  # type: ignore[untyped-decorator]
    def make() -> dict[str, Any]:
        record = decoded_record(case, "")
        if not config["is_training"]:
            return dict(samples.evaluation_sample(record, settings, draws))
        second = None
        if settings.pasting is not None:
            second = (decoded_record(case, "paste_"), draws)
        return dict(samples.training_sample(record, settings, draws, pasted=second))

    return {name: value.numpy() for name, value in make().items()}


def without_noise(settings: Any, *, is_video: bool) -> Any:
    targets = dataclasses.replace(
        settings.targets, center_noise=0.0, false_center_rate=0.0
    )
    fields = dataclasses.replace(settings.fields, video=is_video)
    return dataclasses.replace(settings, targets=targets, fields=fields)


def dataset_options(case: reference.Case) -> DatasetOptions:
    config, changes = case.config, dict(case.config["options"])
    changes.pop("only_semantic_annotations", None)
    small = changes.pop("focus_small_instances", None)
    known: dict[str, Any] = {
        "crop_size": tuple(config["crop_size"]),
        "use_two_frames": "prev_image" in case.inputs,
        "use_next_frame": "next_image" in case.inputs,
        "sigma": float(changes.pop("sigma", 8.0)),
    }
    for name in ("thing_id_mask_annotations", "max_thing_id"):
        if name in changes:
            known[name] = changes.pop(name)
    if small:
        known |= {
            "increase_small_instance_weights": True,
            "small_instance_threshold": small["threshold"],
            "small_instance_weight": small["weight"],
        }
    if config["panoptic_copy_paste"]:
        choices = {
            f"panoptic_copy_paste_{kind}_option": choice
            for kind, choice in config["panoptic_copy_paste"].items()
            if kind in ("thing", "stuff", "void")
        }
        paste = PanopticCopyPasteOptions(panoptic_copy_paste_scale=1.0, **choices)
        known["augmentations"] = AugmentationOptions(panoptic_copy_paste=paste)
    assert not changes, f"options of no known kind: {sorted(changes)}"
    return DatasetOptions(**known)


def dataset_info(published: dict[str, Any]) -> DatasetInfo:
    num_classes = published["num_classes"]
    return DatasetInfo(
        name=published["dataset_name"],
        num_classes=num_classes,
        ignore_label=published["ignore_label"],
        label_divisor=published["panoptic_label_divisor"],
        thing_ids=tuple(sorted(published["class_has_instances_list"])),
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        colors=((0, 0, 0),) * num_classes,
        is_video=published["is_video_dataset"],
        is_depth=published["is_depth_dataset"],
        ignore_depth=published["ignore_depth"],
    )


def decoded_record(case: reference.Case, prefix: str) -> dict[str, Any]:
    inputs = case.inputs
    height, width = inputs["image"].shape[:2]
    names = {  # are not stored with the inputs, and pass through
        records.IMAGE_NAME: "image_name",
        records.SEQUENCE: "sequence_id",
        records.FRAME: "frame_id",
    }
    decoded = {
        key: tf.constant(str(case.outputs.get(name, name)))
        for key, name in names.items()
    }
    decoded[records.HEIGHT] = tf.constant(height)
    decoded[records.WIDTH] = tf.constant(width)
    for name in ("image", "prev_image", "next_image"):
        if prefix + name in inputs:
            decoded[name] = tf.constant(inputs[prefix + name])
    for name in ("label", "prev_label", "next_label", "depth"):
        if prefix + name in inputs:
            values = inputs[prefix + name].reshape(height, width, 1)
            decoded[name] = tf.constant(values, tf.int32)
    return decoded
