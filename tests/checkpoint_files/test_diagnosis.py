"""A checkpoint is told apart by its keys, and errors say what the user needs."""

import json
from pathlib import Path

import pytest

from deeplab2_edge.checkpoint_files import explain, identify
from deeplab2_edge.checkpoint_files.contents import SUFFIX

# Manifests of published checkpoints: some here, all of them beside the project.
GOLDEN = Path(__file__).parents[1] / "golden" / "models"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "models"

Shapes = dict[str, tuple[int, ...]]


def resnet(
    *,
    stem: str = "plain",
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    attention: str = "none",
    channels: int = 3,
    width: float = 1,
    more: Shapes | None = None,
) -> Shapes:
    """Makes the telling variables of a backbone with stages.

    Attention is in no block, in all, or `late`: from the second block of stage 4 on.
    """
    first = {
        "plain": ("_stem/_conv", 7),
        "wide": ("_stem/_conv", 3),
        "beta": ("_stem/_conv1_bn_act/_conv", 3),
    }[stem]
    shapes: Shapes = {f"encoder/{first[0]}/kernel": (first[1], first[1], channels, 64)}
    counts = dict(enumerate(blocks, start=2))
    if stem == "wide":
        counts[1] = 3
    for stage, count in counts.items():
        for block in range(1, count + 1):
            path = f"encoder/_stage{stage}/_block{block}"
            shapes[f"{path}/_conv1_bn_act/_conv/kernel"] = (1, 1, 64, 64)
            is_late = stage == 5 or (stage == 4 and block > 1)
            if attention == "all" or (attention == "late" and is_late):
                shapes[f"{path}/_attention/_height_axis/qkv_kernel"] = (64, 128)
            if stem != "wide" or stage == 5:
                shapes[f"{path}/_conv3_bn/_conv/kernel"] = (1, 1, 64, 64)
        last = int(64 * 2**stage * width)
        shapes[f"encoder/_stage{stage}/_block1/_shortcut/_conv/kernel"] = 1, 1, 8, last
    return {**shapes, **(more or {})}


def kernel(side: int) -> Shapes:
    """Returns the depthwise kernel of one row, which tells a minimalistic network."""
    path = "encoder/_blocks/4/_conv2_bn_act/_depthwise_conv/depthwise_kernel"
    return {path: (side, side, 96, 1)}


def mobilenet(rows: int = 13, width: int = 576, more: Shapes | None = None) -> Shapes:
    shapes: Shapes = {
        f"encoder/_blocks/{row}/_conv3_bn/_conv/kernel": (1, 1, 8, 8)
        for row in range(1, rows - 1)
    }
    shapes["encoder/_blocks/0/_conv/kernel"] = (3, 3, 3, 16)
    shapes[f"encoder/_blocks/{rows - 1}/_conv/kernel"] = (1, 1, width // 6, width)
    return {**shapes, **(more or {})}


def panoptic(classes: int = 19, *, has_instances: bool = True) -> Shapes:
    shapes: Shapes = {
        "semantic_decoder/_aspp/_proj_conv_bn_act/_conv/kernel": (1, 1, 1280, 256),
        "semantic_last_layer/kernel": (1, 1, 256, classes),
        "semantic_last_layer/bias": (classes,),
    }
    if has_instances:
        shapes["instance_decoder/_aspp/_proj_conv_bn_act/_conv/kernel"] = (1, 1, 8, 8)
        shapes["instance_center_head_last_layer/bias"] = (1,)
    return shapes


MOTION: Shapes = {"motion_regression_head_last_layer/bias": (2,)}
V3: Shapes = {
    "deeplab_v3_aspp/_proj_conv_bn_act/_conv/kernel": (1, 1, 1280, 256),
    "semantic_last_layer/_conv/kernel": (1, 1, 256, 21),
    "semantic_last_layer/_conv/bias": (21,),
}
MEMORY: Shapes = {"encoder/memory_feature": (1, 128, 256)}
STACKS: Shapes = {"encoder/_decoder_stage1/_block1/_conv1_bn_act/_conv/kernel": (1,)}
SWITCH: Shapes = {"encoder/_stage5/_block1/_conv2_bn_act/_conv/_switch/bias": (1,)}
WIDE = (3, 6, 3, 3)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (mobilenet(), "mobilenet_v3_small"),
        (mobilenet(more=kernel(5)), "mobilenet_v3_small"),
        (mobilenet(more=kernel(3)), "mobilenet_v3_small_minimalistic"),
        (mobilenet(17, 960), "mobilenet_v3_large"),
        (mobilenet(13, 288), "mobilenet_v3_small with 288 channels at its end, not"),
        (resnet(), "resnet50"),
        (resnet(stem="beta"), "resnet50_beta"),
        (resnet(attention="all"), "axial_resnet"),
        (resnet(stem="beta", attention="all"), "axial_deeplab"),
        (resnet(stem="beta", attention="late"), "max_deeplab_s_backbone"),
        (resnet(stem="beta", attention="late", more=MEMORY), "max_deeplab_s"),
        (resnet(stem="wide", blocks=WIDE), "wide_resnet41 or swidernet"),
        (
            resnet(stem="wide", blocks=WIDE, more=SWITCH),
            "swidernet with switchable atrous convolution",
        ),
        (resnet(stem="wide", blocks=WIDE, attention="late"), "axial_swidernet"),
        (
            resnet(stem="wide", blocks=WIDE, attention="late", more=STACKS),
            "max_deeplab_l_backbone",
        ),
        (
            resnet(
                stem="wide", blocks=WIDE, attention="late", more={**STACKS, **MEMORY}
            ),
            "max_deeplab_l",
        ),
        (
            resnet(stem="wide", blocks=(13, 27, 13, 13), attention="late"),
            "axial_swidernet (13, 27, 13, 13 blocks)",
        ),
        (
            resnet(stem="wide", blocks=(9, 18, 9, 9), width=1.5),
            "wide_resnet41 or swidernet (9, 18, 9, 9 blocks; 1.5 times as wide)",
        ),
        (
            resnet(stem="beta", blocks=(1, 2, 2, 2), attention="late"),
            "an unknown encoder (1, 2, 2, 2 blocks)",
        ),
        (resnet(blocks=WIDE), "an unknown encoder (3, 6, 3, 3 blocks)"),
        (resnet(blocks=(3, 4, 6)), "an unknown encoder (3, 4, 6 blocks)"),
        (resnet(more=MEMORY), "an unknown encoder (3, 4, 6, 3 blocks)"),
        (resnet(attention="late"), "an unknown encoder (3, 4, 6, 3 blocks)"),
        (
            resnet(more={"encoder/_stage2/_block1/_attention/kernel": (1, 2)}),
            "an unknown encoder (3, 4, 6, 3 blocks)",
        ),
        (
            resnet(
                more={"encoder/_stage4/_block1/_shortcut/_conv/kernel": (1, 1, 8, 768)}
            ),
            "an unknown encoder (3, 4, 6, 3 blocks)",
        ),
        (mobilenet(9), "an unknown encoder (9 rows)"),
        (mobilenet(17, 640), "mobilenet_v3_large with 640 channels at its end, not"),
        (
            {**mobilenet(), "encoder/_blocks/0/_conv/kernel": (3, 3, 3, 32)},
            "an unknown encoder (13 rows)",
        ),
        ({"encoder/layer1/kernel": (1,)}, "an unknown encoder (encoder/layer1/kernel"),
    ],
)
def test_backbones_are_told_by_their_keys(shapes: Shapes, words: str) -> None:
    found = identify(shapes).encoder
    assert found is not None
    assert found.startswith(words)
    assert found == words or not words.isidentifier()


def test_an_encoder_of_ones_own_is_told_by_its_configuration() -> None:
    shapes = resnet(stem="beta", blocks=(1, 2, 2, 2), attention="late")
    assert identify(shapes, "street_hybrid").encoder == "street_hybrid"
    assert identify(resnet(), "swidernet").encoder == "resnet50"
    assert identify({}, "street_hybrid").encoder is None


@pytest.mark.parametrize(
    ("heads", "family"),
    [
        (panoptic(), "panoptic_deeplab"),
        (panoptic(has_instances=False), "panoptic_deeplab"),
        ({**panoptic(), **MOTION}, "motion_deeplab"),
        ({**panoptic(), "depth_head_last_layer/bias": (1,)}, "vip_deeplab"),
        (V3, "deeplab_v3"),
        ({"deeplab_v3plus_fuse/x": (1,)}, "deeplab_v3_plus"),
        ({**panoptic(), "pixel_space_head/x": (1,)}, "max_deeplab"),
        ({}, None),
    ],
)
def test_families_are_told_by_their_items(heads: Shapes, family: str | None) -> None:
    assert identify({**resnet(), **heads}).family == family


def test_what_a_checkpoint_is_fits_in_a_line() -> None:
    text = str(identify({**resnet(channels=7), **panoptic(), **MOTION}))
    assert text == "Motion-DeepLab, resnet50, 19 classes, 7 input channels"
    assert str(identify({**resnet(), **V3})) == "DeepLabv3, resnet50, 21 classes"
    assert str(identify({})) == "no known head, no encoder"


def test_nothing_is_explained_where_nothing_telling_differs() -> None:
    shapes = {**resnet(), **panoptic()}
    assert explain(shapes, shapes) == ()


def words(wanted: Shapes, stored: Shapes, *, is_foreign: bool = False) -> str:
    return "; ".join(explain(wanted, stored, is_foreign=is_foreign))


def test_another_backbone_is_named() -> None:
    text = words({**mobilenet(), **panoptic()}, {**resnet(), **panoptic()})
    assert "its encoder is resnet50, the configuration asks for mobilenet_v3_s" in text
    assert "model_options.backbone" in text


def test_another_family_is_named() -> None:
    text = words(
        {**resnet(), **panoptic()}, {**resnet(), **V3, "classifier_conv_bn_act/x": (1,)}
    )
    assert text.startswith(
        "it holds deeplab_v3 items (classifier_conv_bn_act, deeplab_v3_aspp), the "
        "configuration asks for panoptic_deeplab"
    )


def test_motion_from_one_frame_names_the_widening() -> None:
    text = words(
        {**resnet(channels=7), **panoptic(7), **MOTION}, {**resnet(), **panoptic()}
    )
    assert "the configuration asks for motion_deeplab" in text
    assert "takes 3 channels, the configuration's 7" in text
    assert "--widen-first-layer" in text
    assert "only heads are missing: `import-checkpoint --partial`" in text
    assert "`import-checkpoint --keep-classes N,...` keeps 7" in text


def test_an_encoder_alone_is_told_so() -> None:
    wanted = {**resnet(), **panoptic()}
    text = words(wanted, {**resnet(), "head/kernel": (1,)})
    assert "encoder alone (from ImageNet?)" in text
    assert "model_options.initial_checkpoint" in text
    assert "another trainer" in words(wanted, resnet(), is_foreign=True)


@pytest.mark.parametrize(
    ("heads", "field"),
    [
        (panoptic(134), "panoptic_deeplab.semantic_head.output_channels=19"),
        (
            {**panoptic(134), "depth_head_last_layer/bias": (1,)},
            "vip_deeplab.semantic_head.output_channels=19",
        ),
    ],
)
def test_other_classes_name_both_cures(heads: Shapes, field: str) -> None:
    stored = {**resnet(), **heads, **panoptic(19)}
    text = words({**resnet(), **heads}, stored)
    assert "it has 19 classes, the configuration 134" in text
    assert field in text
    assert "restore_semantic_last_layer_from_initial_checkpoint=false" in text
    assert "--keep-classes" not in text  # there are too few


def test_a_semantic_model_names_the_field() -> None:
    stored = {**resnet(), **panoptic(has_instances=False)}
    text = words({**resnet(), **panoptic()}, stored)
    assert "it lacks instance_center_head_last_layer, instance_decoder" in text
    assert "panoptic_deeplab.instance.enable=false" in text


def test_keys_of_tensorflow_1_are_told_so() -> None:
    assert "TensorFlow 1" in words(resnet(), {})


def _cases() -> list[Path]:
    folder = REFERENCE if REFERENCE.is_dir() else GOLDEN
    return sorted(folder.glob("*.json"))


@pytest.mark.parametrize("path", _cases(), ids=[path.stem for path in _cases()])
def test_reference_checkpoints_are_recognized(path: Path) -> None:
    facts = json.loads(path.read_text())
    shapes = {e[0].removesuffix(SUFFIX): tuple(e[1]) for e in facts["manifest"]}
    found = identify(shapes)
    assert found.encoder is not None
    names = {
        "wide_resnet41": "wide_resnet41 or swidernet",
        "swidernet": "swidernet with switchable atrous convolution",
    }
    assert found.encoder == names.get(facts["backbone"], facts["backbone"])
    family = path.stem.partition("_")[0]
    expected = {
        "deeplabv3": "deeplab_v3",
        "deeplabv3plus": "deeplab_v3_plus",
        "max": "max_deeplab",
        "motion": "motion_deeplab",
        "vip": "vip_deeplab",
    }
    assert found.family == expected.get(family, "panoptic_deeplab")
