"""The experiment configuration: one frozen dataclass per published message.

Field names, types and defaults are those of the published configuration files
(protobuf "proto2" text format), so those files are read as they are.

* A field knows whether it was set: `options.has("depth_head")`. Whatever was handed
  to the constructor counts as set, also when it equals the default.
* A repeated field is a tuple. A message whose absence means something (a head, a loss,
  the meta-architecture) is None when unset; any other message reads as its defaults.
* Floats are rounded to single precision, as in the original: 0.1 becomes
  0.10000000149011612, which decides e.g. how many random scales fit a range.
* Messages never change. `options.replace(batch_size=8)` gives a changed copy.

Beyond the published schema, `DatasetOptions.dataset` may also be the path of a
data-set description file (see `deeplab2_edge.datasets.registry`).
"""

import dataclasses
import functools
import math
import struct
import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from deeplab2_edge.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:  # typing.dataclass_transform arrives with Python 3.11

    def dataclass_transform(**_: Any) -> Any:
        return lambda cls: cls


_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1

_EXPECTED: dict[type, str] = {
    str: "a quoted string",
    int: "a 32-bit integer",
    float: "a finite number",
    bool: "true or false",
}


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """Says what a field of a message holds.

    `kind` is `str`, `int`, `float`, `bool` or the class of the sub-message.
    """

    name: str
    kind: type
    is_repeated: bool

    @property
    def is_message(self) -> bool:
        return issubclass(self.kind, Message)

    @property
    def expected(self) -> str:
        """The kind in words, for error messages."""
        return _EXPECTED.get(self.kind, f"a {self.kind.__name__} message")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Message:
    """Is the base of all messages; subclasses become frozen dataclasses by themselves.

    Raises:
        ConfigError: On creation, if a value has the wrong type, an integer does not
            fit 32 bits, a float is not finite in single precision or two members of
            a one-of are set.
    """

    # Groups of fields of which at most one may be set: {name of the group: fields}.
    one_ofs: typing.ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)

    def __new__(cls, **values: Any) -> "Self":
        self = super().__new__(cls)
        object.__setattr__(self, "_present", frozenset(values))
        object.__setattr__(self, "_locations", {})
        return self

    def __post_init__(self) -> None:
        for name, spec in self.specs().items():
            value = getattr(self, name)
            if not self.has(name):
                if isinstance(value, float):  # defaults are single precision too
                    object.__setattr__(self, name, to_float32(value))
                continue
            if value is None:  # None un-sets: replace(depth_head=None)
                self._unset(name)
                continue
            object.__setattr__(self, name, self._checked(spec, value))
        for group, members in self.one_ofs.items():
            taken = [member for member in members if self.has(member)]
            if len(taken) > 1:
                raise ConfigError(
                    f"{type(self).__name__}: {' and '.join(taken)} are both set; "
                    f"at most one {group} may be"
                )

    @classmethod
    @functools.cache
    def specs(cls) -> dict[str, FieldSpec]:
        """Returns the fields of this message, in the order they are written."""
        hints = typing.get_type_hints(cls)
        return {
            field.name: _spec_from_hint(field.name, hints[field.name])
            for field in dataclasses.fields(typing.cast(Any, cls))
        }

    def has(self, field: str) -> bool:
        """Tells whether a field was set, as opposed to left at its default.

        Raises:
            AttributeError: If there is no such field.
        """
        if field not in self.specs():
            raise AttributeError(f"{type(self).__name__} has no field {field!r}")
        return field in self._present

    def present(self) -> tuple[str, ...]:
        """Returns the names of the fields that were set, in schema order."""
        return tuple(name for name in self.specs() if name in self._present)

    def location(self, field: str) -> str:
        """Returns where the field was set, as `file:line`, or "" if not known."""
        return self._locations.get(field, "")

    def replace(self, **changes: Any) -> "Self":
        """Returns a copy with some fields changed; None un-sets a field."""
        kept = {name: getattr(self, name) for name in self.present()}
        locations = {
            name: place for name, place in self._locations.items() if name in kept
        }
        for name in changes:
            locations.pop(name, None)
        return self._created({**kept, **changes}, locations)

    @classmethod
    def _created(cls, values: dict[str, Any], locations: dict[str, str]) -> "Self":
        self = cls(**values)
        self._locations.update(locations)
        return self

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Message)
        return self._set_values() == other._set_values()

    def __hash__(self) -> int:
        return hash((type(self), self._set_values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._set_values())
        return f"{type(self).__name__}({values})"

    def _set_values(self) -> tuple[tuple[str, Any], ...]:
        return tuple((name, getattr(self, name)) for name in self.present())

    def _unset(self, name: str) -> None:
        default = next(
            field.default
            for field in dataclasses.fields(typing.cast(Any, self))
            if field.name == name
        )
        object.__setattr__(self, name, default)
        object.__setattr__(self, "_present", self._present - {name})

    def _checked(self, spec: FieldSpec, value: Any) -> Any:
        try:
            if not spec.is_repeated:
                return check_value(spec, value)
            if isinstance(value, str | bytes | Message) or not hasattr(
                value, "__iter__"
            ):
                raise ValueError("a sequence of values")
            return tuple(check_value(spec, item) for item in value)
        except ValueError as error:
            raise ConfigError(
                f"{type(self).__name__}.{spec.name}: found {value!r}; expected {error}"
            ) from None

    if TYPE_CHECKING:
        _present: typing.ClassVar[frozenset[str]]
        _locations: typing.ClassVar[dict[str, str]]


def check_value(spec: FieldSpec, value: Any) -> Any:
    """Returns one value of a field in its exact type; floats rounded to float32.

    Raises:
        ValueError: If it does not fit; the text says what would, e.g. "a 32-bit
            integer".
    """
    if spec.kind is float and not isinstance(value, bool | str):
        return to_float32(value)
    if spec.kind is int and not isinstance(value, bool | float | str):
        try:
            number = int(value.__index__())  # also takes NumPy integers
        except AttributeError:
            raise ValueError(spec.expected) from None
        if not _INT32_MIN <= number <= _INT32_MAX:
            raise ValueError(spec.expected)
        return number
    if spec.kind in (int, float) or not isinstance(value, spec.kind):
        raise ValueError(spec.expected)
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("text that UTF-8 can write")
    return value


def to_float32(value: Any) -> float:
    """Rounds a number to single precision.

    Raises:
        ValueError: If it is no number or not finite in single precision.
    """
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except (OverflowError, struct.error):
        rounded = math.nan
    if not math.isfinite(rounded):
        raise ValueError(_EXPECTED[float])
    return float(rounded)


def _spec_from_hint(name: str, hint: Any) -> FieldSpec:
    if typing.get_origin(hint) is tuple:
        return FieldSpec(name, typing.get_args(hint)[0], True)
    if isinstance(hint, types.UnionType):  # X | None
        return FieldSpec(name, typing.get_args(hint)[0], False)
    return FieldSpec(name, hint, False)


MessageT = TypeVar("MessageT", bound=Message)


def walk(message: Message, path: str = "") -> Iterator[tuple[str, Message, str]]:
    """Yields `(path, owner, field)` for every set field, sub-messages before theirs.

    The path is dotted, with an index for repeated messages:
    `model_options.panoptic_deeplab.low_level.0.feature_key`.
    """
    for name in message.present():
        spec, value = message.specs()[name], getattr(message, name)
        here = f"{path}.{name}" if path else name
        yield here, message, name
        if spec.is_message and spec.is_repeated:
            for index, item in enumerate(value):
                yield from walk(item, f"{here}.{index}")
        elif spec.is_message:
            yield from walk(value, here)


# Model ---------------------------------------------------------------------------


class BackboneOptions(Message):
    """Selects the encoder and its variant."""

    name: str = "resnet50"
    output_stride: int = 32
    pretrained_weights: str = ""
    use_squeeze_and_excite: bool = False
    drop_path_keep_prob: float = 1.0
    drop_path_schedule: str = "constant"
    stem_width_multiplier: float = 1.0
    backbone_width_multiplier: float = 1.0
    backbone_layer_multiplier: float = 1.0
    use_sac_beyond_stride: int = -1


class DecoderOptions(Message):
    """Describes the ASPP and decoder that all branches share."""

    feature_key: str = ""
    decoder_channels: int = 256
    aspp_channels: int = 256
    atrous_rates: tuple[int, ...] = ()
    decoder_conv_type: str = "depthwise_separable_conv"
    aspp_use_only_1x1_proj_conv: bool = False


class LowLevelOptions(Message):
    """Names a skip connection and the width of its 1x1 projection."""

    feature_key: str = ""
    channels_project: int = 0


class HeadOptions(Message):
    """Describes a prediction head; the last two fields serve the depth head only."""

    output_channels: int = 0
    head_channels: int = 0
    head_conv_type: str = "depthwise_separable_conv"
    max_value_after_activation: float = 0.0
    min_value_after_activation: float = 0.0


class InstanceOptions(Message):
    """Describes the instance branch.

    `instance_decoder_override` replaces the shared decoder options as a whole: its
    unset fields take the defaults of `DecoderOptions`, they do not inherit.
    """

    enable: bool = True
    low_level_override: tuple[LowLevelOptions, ...] = ()
    instance_decoder_override: DecoderOptions | None = None
    center_head: HeadOptions | None = None
    regression_head: HeadOptions | None = None
    next_regression_head: HeadOptions | None = None


class DeeplabV3Options(Message):
    """Selects DeepLabv3."""

    num_classes: int = 0


class DeeplabV3PlusOptions(Message):
    """Selects DeepLabv3+."""

    low_level: LowLevelOptions = LowLevelOptions()
    num_classes: int = 0


class PanopticDeeplabOptions(Message):
    """Selects Panoptic-DeepLab or, as `vip_deeplab`, ViP-DeepLab.

    `low_level` runs from low to high resolution.
    """

    low_level: tuple[LowLevelOptions, ...] = ()
    instance: InstanceOptions = InstanceOptions()
    semantic_head: HeadOptions | None = None
    depth_head: HeadOptions | None = None


class MotionDeepLabOptions(Message):
    """Selects Motion-DeepLab."""

    low_level: tuple[LowLevelOptions, ...] = ()
    instance: InstanceOptions = InstanceOptions()
    semantic_head: HeadOptions | None = None
    motion_head: HeadOptions | None = None


class MaXDeepLabOptions(Message):
    """Selects MaX-DeepLab.

    The `semantic_sample_*` fields are read but have no effect, as in the original.
    """

    pixel_space_head: HeadOptions | None = None
    auxiliary_low_level: tuple[LowLevelOptions, ...] = ()
    auxiliary_semantic_head: HeadOptions | None = None
    instance_discrimination_sample_k: int = 0
    instance_discrimination_sample_temperature: float = 0.6
    semantic_sample_k: int = 0
    semantic_sample_temperature: float = 1.0


META_ARCHITECTURES = (
    "deeplab_v3",
    "deeplab_v3_plus",
    "panoptic_deeplab",
    "motion_deeplab",
    "max_deeplab",
    "vip_deeplab",
)


class ModelOptions(Message):
    """Describes the network and what is restored into it."""

    one_ofs = {"meta_architecture": META_ARCHITECTURES}

    backbone: BackboneOptions = BackboneOptions()
    decoder: DecoderOptions = DecoderOptions()
    deeplab_v3: DeeplabV3Options | None = None
    deeplab_v3_plus: DeeplabV3PlusOptions | None = None
    panoptic_deeplab: PanopticDeeplabOptions | None = None
    motion_deeplab: MotionDeepLabOptions | None = None
    max_deeplab: MaXDeepLabOptions | None = None
    vip_deeplab: PanopticDeeplabOptions | None = None
    initial_checkpoint: str = ""
    restore_semantic_last_layer_from_initial_checkpoint: bool = True
    restore_instance_last_layer_from_initial_checkpoint: bool = True

    @property
    def meta_architecture(self) -> str | None:
        """The name of the one-of member that is set, e.g. `panoptic_deeplab`."""
        return next((name for name in META_ARCHITECTURES if self.has(name)), None)


# Data ----------------------------------------------------------------------------


class PanopticCopyPasteOptions(Message):
    """Describes copy-paste augmentation; each option is random, none or all."""

    panoptic_copy_paste_scale: float = 0.0
    panoptic_copy_paste_thing_option: str = "random"
    panoptic_copy_paste_stuff_option: str = "random"
    panoptic_copy_paste_void_option: str = "none"


class AugmentationOptions(Message):
    """Describes augmentation; an empty policy name switches AutoAugment off."""

    min_scale_factor: float = 1.0
    max_scale_factor: float = 1.0
    scale_factor_step_size: float = 0.25
    autoaugment_policy_name: str = ""
    panoptic_copy_paste: PanopticCopyPasteOptions | None = None


class DatasetOptions(Message):
    """Describes where samples come from and how they are brought to the crop.

    `crop_size` is (height, width), each k * output_stride + 1. `dataset` is a name of
    the registry or, our extension, the path of a data-set description file.
    """

    dataset: str = ""
    file_pattern: tuple[str, ...] = ()
    batch_size: int = 32
    crop_size: tuple[int, ...] = ()
    min_resize_value: tuple[int, ...] = ()
    max_resize_value: tuple[int, ...] = ()
    resize_factor: int = 0
    augmentations: AugmentationOptions = AugmentationOptions()
    sigma: float = 8.0
    increase_small_instance_weights: bool = False
    small_instance_threshold: int = 4096
    small_instance_weight: float = 3.0
    use_two_frames: bool = False
    decode_groundtruth_label: bool = True
    thing_id_mask_annotations: bool = False
    max_thing_id: int = 128
    use_next_frame: bool = False
    cameras_to_use: tuple[str, ...] = ()


# Training ------------------------------------------------------------------------


class SolverOptions(Message):
    """Describes optimizer, learning rate and batch normalization."""

    use_sync_batchnorm: bool = True
    batchnorm_momentum: float = 0.99
    batchnorm_epsilon: float = 0.001
    learning_policy: str = "poly"
    base_learning_rate: float = 1e-3
    poly_learning_power: float = 0.9
    poly_end_learning_rate: float = 0.0
    warmup_steps: int = 0
    optimizer: str = "adam"
    weight_decay: float = 0.0
    adamw_weight_decay: float = 0.0
    use_gradient_clipping: bool = False
    clip_gradient_norm: float = 10.0
    training_number_of_steps: int = 60000
    backbone_learning_rate_multiplier: float = 1.0


class SingleLossOptions(Message):
    """Describes one loss; `top_k_percent` is a fraction in [0, 1] despite its name."""

    name: str = ""
    weight: float = 1.0
    top_k_percent: float = 1.0


class LossOptions(Message):
    """Holds the losses; those that are set are trained with."""

    semantic_loss: SingleLossOptions | None = None
    center_loss: SingleLossOptions | None = None
    regression_loss: SingleLossOptions | None = None
    motion_loss: SingleLossOptions | None = None
    next_regression_loss: SingleLossOptions | None = None
    pq_style_loss: SingleLossOptions | None = None
    mask_id_cross_entropy_loss: SingleLossOptions | None = None
    instance_discrimination_loss: SingleLossOptions | None = None
    depth_loss: SingleLossOptions | None = None


class TrainerOptions(Message):
    """Describes the training loop."""

    num_checkpoints_to_keep: int = 5
    save_checkpoints_steps: int = 1000
    save_summaries_steps: int = 1000
    steps_per_loop: int = 1000
    loss_options: LossOptions = LossOptions()
    solver_options: SolverOptions = SolverOptions()


# Evaluation ----------------------------------------------------------------------


class MaskwisePostProcessingOptions(Message):
    """Describes mask-wise merging of mask transformer outputs."""

    transformer_class_confidence_threshold_thing: float = 0.7
    transformer_class_confidence_threshold_stuff: float = 0.7
    overlapping_threshold: float = 0.5
    reorder_class_weight: float = 1.0
    reorder_mask_weight: float = 0.0


class EvaluatorOptions(Message):
    """Describes evaluation and the merging of the heads; areas are in pixels."""

    eval_steps: int = -1
    eval_interval: int = 5000
    continuous_eval_timeout: int = -1
    use_tf_function: bool = True
    add_flipped_images: bool = False
    stuff_area_limit: int = 0
    thing_area_limit: int = 0
    transformer_class_confidence_threshold: float = 0.7
    pixel_confidence_threshold: float = 0.4
    transformer_post_processing: str = "pixelwise"
    maskwise_postprocessing: MaskwisePostProcessingOptions | None = None
    center_score_threshold: float = 0.1
    nms_kernel: int = 3
    keep_k_centers: int = 400
    save_predictions: bool = False
    override_save_dir: str = ""
    num_vis_samples: int = 10
    save_raw_predictions: bool = False
    convert_raw_to_eval_ids: bool = True
    eval_scales: tuple[float, ...] = ()
    merge_semantic_and_instance_with_tf_op: bool = True
    raw_panoptic_format: str = "two_channel_png"
    detailed_ap_metrics: bool = False


class ExperimentOptions(Message):
    """Is one experiment: the root message of a configuration file.

    `train_dataset_options.crop_size` is also read for inference (it fixes the pooling
    window of the ASPP); `eval_dataset_options.crop_size` is the inference canvas.
    """

    experiment_name: str = ""
    model_options: ModelOptions = ModelOptions()
    trainer_options: TrainerOptions = TrainerOptions()
    train_dataset_options: DatasetOptions = DatasetOptions()
    evaluator_options: EvaluatorOptions = EvaluatorOptions()
    eval_dataset_options: DatasetOptions = DatasetOptions()
