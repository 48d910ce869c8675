"""Every recipe builds, with the published number of parameters."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from deeplab2_edge.config import ExperimentOptions, load_config

pytestmark = pytest.mark.tf
pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

FOLDER = Path(str(files("deeplab2_edge.train.recipes")))

# One small network of each decoder; the others are many and some have gigabytes.
FAST = {
    "cityscapes_panoptic_mobilenet_v3_small_os16",
    "cityscapes_deeplabv3_mobilenet_v3_small_os16_res513x1025",
    "cityscapes_deeplabv3plus_mobilenet_v3_small_os16_res513x1025",
}

# Scalars of all variables, moving statistics included, as published.
PARAMETERS = {
    "cityscapes_panoptic_mobilenet_v3_small_os16": 10_508_022,
    "cityscapes_panoptic_mobilenet_v3_small_os32": 10_508_022,
    "cityscapes_panoptic_mobilenet_v3_large_os16": 18_272_646,
    "cityscapes_panoptic_mobilenet_v3_large_os32": 18_272_646,
    "cityscapes_panoptic_resnet50_beta_os32": 55_162_694,
    "cityscapes_panoptic_swidernet_sac_1_1_1_os16": 144_488_521,
    "cityscapes_axial_axial_swidernet_1_1_1_os16": 138_044_422,
    "cityscapes_axial_max_deeplab_s_backbone_os16": 42_939_462,
    "cityscapes_axial_max_deeplab_l_backbone_os16": 176_813_254,
    "example_cityscapes_deeplabv3": 39_695_059,
    "example_cityscapes_deeplabv3plus": 39_269_379,
    "kitti_motion_resnet50_os32": 55_059_080,
    "cityscapes_dvps_vip_resnet50_beta_os32": 86_026_873,
    "coco_max_deeplab_s_os16_res1025_100k": 77_990_256,
    "coco_max_deeplab_l_os16_res1025_100k": 451_622_800,
}


def cases() -> Iterator[Any]:
    """Yields one recipe of each network, not those that differ in crop or steps."""
    seen = set()
    for path in sorted(FOLDER.glob("*.textproto")):
        config = load_config(path)
        key = config.model_options
        if key in seen:
            continue
        seen.add(key)
        marks = [] if path.stem in FAST else [pytest.mark.slow]
        yield pytest.param(path.stem, config, id=path.stem, marks=marks)


@pytest.mark.parametrize(("name", "config"), list(cases()))
def test_a_recipe_builds(name: str, config: ExperimentOptions) -> None:
    import tf_keras

    from deeplab2_edge.models import build_model

    side = 2 * config.model_options.backbone.output_stride + 1
    tf_keras.backend.clear_session()
    model = build_model(config, input_size=(side, side))
    count = model.count_params()
    outputs = {key: tuple(value.shape) for key, value in model.output.items()}
    del model
    tf_keras.backend.clear_session()  # the largest network alone has 1.8 GB

    assert outputs["semantic_logits"][-1] == classes_of(config)
    assert count == PARAMETERS.get(name, count)


def test_every_published_number_belongs_to_a_case() -> None:
    assert set(PARAMETERS) <= {case.id for case in cases()}


def classes_of(config: ExperimentOptions) -> int:
    dataset = config.train_dataset_options.dataset
    return {
        "camvid": 11,
        "synthetic_street": 11,
        "motchallenge_step": 7,
        "coco_panoptic": 134,
    }.get(dataset, 19)
