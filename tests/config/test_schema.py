import copy
import dataclasses
import pickle

import pytest

from deeplab2_edge.config import (
    BackboneOptions,
    DatasetOptions,
    DeeplabV3Options,
    ExperimentOptions,
    HeadOptions,
    InstanceOptions,
    ModelOptions,
    PanopticDeeplabOptions,
    SolverOptions,
)
from deeplab2_edge.errors import ConfigError


def test_an_unset_field_reads_as_its_default() -> None:
    backbone = BackboneOptions(name="mobilenet_v3_small")
    assert backbone.output_stride == 32
    assert not backbone.has("output_stride")


def test_a_field_set_to_its_default_counts_as_set() -> None:
    assert SolverOptions(backbone_learning_rate_multiplier=1.0).has(
        "backbone_learning_rate_multiplier"
    )


def test_presence_is_part_of_equality() -> None:
    assert BackboneOptions() != BackboneOptions(output_stride=32)
    assert BackboneOptions(output_stride=32) == BackboneOptions(output_stride=32)


def test_has_refuses_an_unknown_field() -> None:
    with pytest.raises(AttributeError, match="BackboneOptions has no field 'stride'"):
        BackboneOptions().has("stride")


def test_an_unset_message_reads_as_defaults_or_none() -> None:
    config = ExperimentOptions()
    assert config.trainer_options.solver_options.optimizer == "adam"
    assert config.model_options.panoptic_deeplab is None
    assert InstanceOptions().instance_decoder_override is None


@pytest.mark.parametrize("value", [0.1, 0.99, 1e-5])
def test_floats_have_single_precision(value: float) -> None:
    solver = SolverOptions(batchnorm_momentum=value)
    assert solver.batchnorm_momentum == pytest.approx(value, rel=1e-7)
    assert solver.batchnorm_momentum != value


def test_default_floats_have_single_precision_too() -> None:
    assert SolverOptions().batchnorm_momentum == 0.9900000095367432


def test_published_defaults() -> None:
    config = ExperimentOptions()
    assert config.train_dataset_options.batch_size == 32
    assert config.train_dataset_options.sigma == 8.0
    assert config.evaluator_options.nms_kernel == 3
    assert config.evaluator_options.merge_semantic_and_instance_with_tf_op
    assert config.model_options.backbone.use_sac_beyond_stride == -1
    assert config.trainer_options.num_checkpoints_to_keep == 5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: BackboneOptions(name=3),  # type: ignore[arg-type]
            r"BackboneOptions\.name: found 3; expected a quoted string",
        ),
        (
            lambda: BackboneOptions(output_stride=2**31),
            r"output_stride: found 2147483648; expected a 32-bit integer",
        ),
        (lambda: BackboneOptions(output_stride=True), "expected a 32-bit integer"),
        (
            lambda: BackboneOptions(output_stride=1.0),  # type: ignore[arg-type]
            "expected a 32-bit integer",
        ),
        (
            lambda: BackboneOptions(use_squeeze_and_excite=1),  # type: ignore[arg-type]
            "found 1; expected true or false",
        ),
        (
            lambda: SolverOptions(base_learning_rate=1e60),
            "base_learning_rate: found 1e.60; expected a finite number",
        ),
        (lambda: BackboneOptions(name="\udcff"), "expected text that UTF-8 can write"),
        (
            lambda: SolverOptions(weight_decay="1"),  # type: ignore[arg-type]
            "found '1'; expected a finite number",
        ),
        (lambda: SolverOptions(weight_decay=float("nan")), "a finite number"),
        (
            lambda: DatasetOptions(crop_size=1025),  # type: ignore[arg-type]
            "crop_size: found 1025; expected a sequence of values",
        ),
        (
            lambda: DatasetOptions(file_pattern="a"),  # type: ignore[arg-type]
            "expected a sequence of values",
        ),
        (
            lambda: ModelOptions(backbone=HeadOptions()),  # type: ignore[arg-type]
            "expected a BackboneOptions message",
        ),
    ],
)
def test_a_wrong_value_is_refused(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        build()


def test_two_members_of_a_one_of_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="deeplab_v3 and vip_deeplab are both set; at most one"
    ):
        ModelOptions(
            deeplab_v3=DeeplabV3Options(), vip_deeplab=PanopticDeeplabOptions()
        )


def test_meta_architecture_names_the_member_that_is_set() -> None:
    assert ModelOptions().meta_architecture is None
    assert ModelOptions(deeplab_v3=DeeplabV3Options()).meta_architecture == "deeplab_v3"


def test_messages_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BackboneOptions().name = "resnet50"  # type: ignore[misc]


def test_replace_sets_and_unsets() -> None:
    options = DatasetOptions(batch_size=4, crop_size=[65, 129])  # type: ignore[arg-type]
    assert options.crop_size == (65, 129)
    changed = options.replace(batch_size=None, sigma=2)
    assert not changed.has("batch_size")
    assert changed.batch_size == 32
    assert changed.sigma == 2.0
    assert options.batch_size == 4


def test_messages_survive_copy_and_pickle() -> None:
    options = DatasetOptions(batch_size=4, crop_size=(65, 129))
    for twin in (copy.deepcopy(options), pickle.loads(pickle.dumps(options))):
        assert twin == options
        assert hash(twin) == hash(options)


def test_repr_shows_what_is_set() -> None:
    assert repr(DatasetOptions(batch_size=4)) == "DatasetOptions(batch_size=4)"
