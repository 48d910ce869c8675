"""What a model file says about its graph: enough to use it without anything else."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DataError, ModelFileError
from deeplab2_edge.families import FAMILIES, HEADS, MASKS, OF_VIDEOS
from deeplab2_edge.model_file import fields
from deeplab2_edge.model_file.fields import Fields
from deeplab2_edge.panoptic import MaskSettings, MaskwiseSettings, MergeSettings

FORMAT_VERSION = 2
METADATA_NAME = "deeplab2_edge.json"
MAX_CANVAS_PIXELS = 16 << 20  # eight times the largest published canvas
MAX_CLASSES = 1024
MAX_TENSORS = 64
# Classes in float32 at the stride of a decoder, on the largest canvas.
MAX_TENSOR_VALUES = 1 << 30

HOST = "host"
GRAPH = "graph"
CUSTOM_OP = "custom-op"
MERGE_PLACES = (HOST, GRAPH, CUSTOM_OP)

_INPUT_DTYPES = ("uint8", "int8", "int16", "float32")
_MAX_RANK = 4
_SHARED_SETTINGS = ("thing_ids", "label_divisor", "ignore_label")


class Shaped(Protocol):
    """What has the shape and type of an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Describes an input tensor.

    Attributes:
        name: Tensor name in the graph.
        shape: Without the batch, which is one: `(H, W, C)`.
        dtype: `uint8`, `int8`, `int16` or `float32`.
        range: Lowest and highest value the graph expects before quantization.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "uint8"
    range: tuple[float, float] = (0.0, 255.0)

    def __post_init__(self) -> None:
        check(self.dtype in _INPUT_DTYPES, "dtype", self.dtype, _INPUT_DTYPES)
        _check_shape(self.shape)
        low, high = self.range
        check(
            math.isfinite(low) and math.isfinite(high) and low < high,
            "range",
            list(self.range),
            "two numbers, the lower one first",
        )


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """Describes an output tensor.

    Attributes:
        name: Tensor name in the graph.
        shape: Without the batch, which is one.
    """

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_shape(self.shape)


@dataclasses.dataclass(frozen=True)
class ResizeRule:
    """Says how an image is resized before it is padded to the canvas.

    Attributes:
        min: (height, width) to enlarge to, or None: never enlarge.
        max: (height, width) to shrink to, or None: the canvas.
        factor: Sides become `k * factor + 1`; 0 leaves them.
    """

    min: tuple[int, int] | None = None
    max: tuple[int, int] | None = None
    factor: int = 0

    def __post_init__(self) -> None:
        for name, pair in (("min", self.min), ("max", self.max)):
            check(
                pair is None or all(0 < side <= 1 << 16 for side in pair),
                f"resize.{name}",
                pair,
                "null or two positive sides",
            )
        check(0 <= self.factor <= 4096, "resize.factor", self.factor, "0 to 4096")


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """Describes a converted model completely.

    Attributes:
        name: Short name for people.
        family: One of `families.FAMILIES`: what follows the network.
        meta_architecture: For example `panoptic_deeplab`.
        backbone: For example `mobilenet_v3_small`.
        output_stride: Of the backbone.
        canvas: (height, width) of the image that the network takes.
        inputs: The input tensors, by the names of `models.inference`.
        outputs: The output tensors: heads by the names in `keys`, or, where the graph
            merges them itself, maps.
        class_names: Name of each class; the index is the class id.
        colors: RGB color of each class.
        thing_ids: Class ids with instances.
        label_divisor: A panoptic id is `class * label_divisor + instance`.
        ignore_label: Class id of pixels without a class (void).
        merge: Settings of the panoptic merge, of families that have centers.
        masks: Settings of mask decoding, of the family of masks.
        merge_place: Where heads become maps: `host`, `graph` or `custom-op`.
        resize: How images are brought to the canvas.
        quantization: For example `none`, `fp16`, `int8`.
        target: The kind of device that the graph was made for.
        provenance: `checkpoint`, `config_sha256`, `created`, `tool_versions`.
        certificate: What the conversion was compared with, and what was found.
        graph_sha256: Of the graph; `write_model_file` fills it in.

    Raises:
        ModelFileError: If a field makes no sense.
    """

    name: str
    family: str
    meta_architecture: str
    backbone: str
    output_stride: int
    canvas: tuple[int, int]
    inputs: Mapping[str, InputSpec]
    outputs: Mapping[str, OutputSpec]
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    thing_ids: tuple[int, ...]
    label_divisor: int
    ignore_label: int
    merge: MergeSettings | None = None
    masks: MaskSettings | None = None
    merge_place: str = HOST
    resize: ResizeRule = dataclasses.field(default_factory=ResizeRule)
    quantization: str = "none"
    target: str = "cpu"
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    certificate: Mapping[str, Any] | None = None
    graph_sha256: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        check(self.family in FAMILIES, "family", self.family, FAMILIES)
        check(
            self.merge_place in MERGE_PLACES,
            "merge_place",
            self.merge_place,
            MERGE_PLACES,
        )
        height, width = self.canvas
        check(
            height > 1 and width > 1 and height * width <= MAX_CANVAS_PIXELS,
            "canvas",
            list(self.canvas),
            f"two sides above 1 and at most {MAX_CANVAS_PIXELS} pixels",
        )
        check(self.output_stride >= 1, "output_stride", self.output_stride, "positive")
        self._check_classes()
        self._check_tensors()
        self._check_settings()

    @property
    def num_classes(self) -> int:
        """Number of semantic classes."""
        return len(self.class_names)

    @property
    def has_instances(self) -> bool:
        """Whether there is more than classes."""
        return self.merge is not None or self.masks is not None

    @property
    def keeps_ids(self) -> bool:
        """Whether instances keep their ids over a video."""
        return self.family in OF_VIDEOS

    @property
    def has_depth(self) -> bool:
        """Whether the network gives meters for each pixel."""
        return keys.DEPTH_PRED in self.outputs

    @property
    def head_size(self) -> tuple[int, int]:
        """(height, width) of the first head of the family, or of the map."""
        name = HEADS[self.family][0]
        spec = self.outputs.get(name) or self.outputs[keys.SEMANTIC_PRED]
        return spec.shape[0], spec.shape[1]

    def check_canvas(self, canvas: NDArray[np.uint8]) -> None:
        """Refuses what this model cannot take.

        Args:
            canvas: uint8 `[H, W, 3]`, RGB, of the size of `canvas`.

        Raises:
            DataError: If it has another shape or type.
        """
        expected = (*self.canvas, 3)
        if canvas.shape != expected or canvas.dtype != np.uint8:
            raise DataError(
                f"canvas is {canvas.dtype} {list(canvas.shape)}; this model takes "
                f"uint8 {list(expected)}"
            )

    def check_inputs(self, inputs: Mapping[str, Shaped]) -> None:
        """Refuses inputs that are not those of this model.

        Args:
            inputs: Arrays without batch, by name: pictures uint8, all else float32.

        Raises:
            DataError: If one is missing, unknown or has another shape or type.
        """
        if set(inputs) != set(self.inputs):
            raise DataError(
                f"inputs are {sorted(inputs)}; this model takes {sorted(self.inputs)}"
            )
        for name, array in inputs.items():
            wanted = "uint8" if is_picture(name) else "float32"
            shape = self.inputs[name].shape
            if array.shape != shape or array.dtype != wanted:
                raise DataError(
                    f"{name} is {array.dtype} {list(array.shape)}; this model takes "
                    f"{wanted} {list(shape)}"
                )

    def to_json(self) -> str:
        """Writes the metadata as a JSON document."""
        document = dataclasses.asdict(self)
        for section in ("merge", "masks"):
            for name in _SHARED_SETTINGS:
                if document[section] is not None:
                    del document[section][name]
        return json.dumps(document, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelMetadata":
        """Reads what `to_json` wrote.

        Raises:
            ModelFileError: If the text is not JSON or a field is missing or wrong.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{METADATA_NAME} is not JSON ({error})") from None
        found = Fields(document, METADATA_NAME)
        _check_version(found.get("format_version", fields.integer))
        inputs, outputs = (found.section(n).sections() for n in ("inputs", "outputs"))
        resize = found.section("resize")
        shared: dict[str, Any] = {
            "thing_ids": found.get("thing_ids", fields.integers),
            "label_divisor": found.get("label_divisor", fields.integer),
            "ignore_label": found.get("ignore_label", fields.integer),
        }
        return cls(
            name=found.get("name", fields.text),
            family=found.get("family", fields.text),
            meta_architecture=found.get("meta_architecture", fields.text),
            backbone=found.get("backbone", fields.text),
            output_stride=found.get("output_stride", fields.integer),
            canvas=found.get("canvas", fields.pair),
            inputs={name: _read_input(section) for name, section in inputs.items()},
            outputs={
                name: OutputSpec(
                    section.get("name", fields.text),
                    section.get("shape", fields.integers),
                )
                for name, section in outputs.items()
            },
            class_names=found.get("class_names", fields.texts),
            colors=found.get("colors", fields.rgb_colors),
            merge=_read_merge(found.optional_section("merge"), shared),
            masks=_read_masks(found.optional_section("masks"), shared),
            merge_place=found.get("merge_place", fields.text),
            resize=ResizeRule(
                min=resize.get("min", fields.pair_or_none),
                max=resize.get("max", fields.pair_or_none),
                factor=resize.get("factor", fields.integer),
            ),
            quantization=found.get("quantization", fields.text),
            target=found.get("target", fields.text),
            provenance=found.get("provenance", fields.mapping),
            certificate=found.get("certificate", fields.mapping_or_none),
            graph_sha256=found.get("graph_sha256", fields.text),
            **shared,
        )

    def _check_tensors(self) -> None:
        for kind, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            check(
                1 <= len(specs) <= MAX_TENSORS,
                kind,
                f"{len(specs)} tensors",
                f"1 to {MAX_TENSORS}",
            )
        check(keys.IMAGE in self.inputs, "inputs", sorted(self.inputs), "with image")
        picture = (*self.canvas, 3)
        for name, spec in self.inputs.items():
            if is_picture(name):
                check(
                    spec.shape == picture, f"inputs.{name}", list(spec.shape), picture
                )
        if self.merge_place == GRAPH:
            check(
                keys.SEMANTIC_PRED in self.outputs,
                "outputs",
                sorted(self.outputs),
                f"with {keys.SEMANTIC_PRED}",
            )
            return
        needed = HEADS[self.family]
        check(set(needed) <= set(self.outputs), "outputs", sorted(self.outputs), needed)
        channels = {
            keys.SEMANTIC_LOGITS: self.num_classes,
            keys.CENTER_HEATMAP: 1,
            keys.OFFSET_MAP: 2,
            keys.NEXT_OFFSET_MAP: 2,
            keys.FRAME_OFFSET_MAP: 2,
            keys.DEPTH_PRED: 1,
        }
        for name, count in channels.items():
            shape = self.outputs[name].shape if name in self.outputs else None
            check(
                shape is None
                or (len(shape) == 3 and shape[2] == count and min(shape[:2]) > 1),
                f"outputs.{name}.shape",
                list(shape or ()),
                f"height, width (both above 1) and {count}",
            )

    def _check_classes(self) -> None:
        count = len(self.class_names)
        check(
            1 <= count <= MAX_CLASSES, "class_names", count, f"1 to {MAX_CLASSES} names"
        )
        check(
            len(self.colors) == count
            and all(len(c) == 3 and all(0 <= v <= 255 for v in c) for c in self.colors),
            "colors",
            f"{len(self.colors)} entries",
            f"{count} RGB triples of 0 to 255",
        )
        check(
            all(0 <= thing < count for thing in self.thing_ids),
            "thing_ids",
            list(self.thing_ids),
            f"class ids below {count}",
        )
        top = np.iinfo(np.int32).max
        check(
            1 <= self.label_divisor
            and 0 <= self.ignore_label
            and (max(count, self.ignore_label) + 1) * self.label_divisor <= top,
            "label_divisor",
            self.label_divisor,
            "positive, with every panoptic id within int32",
        )

    def _check_settings(self) -> None:
        is_of_masks = self.family == MASKS
        has_centers = keys.CENTER_HEATMAP in HEADS[self.family]
        for name, settings, is_needed in (
            ("merge", self.merge, has_centers),
            ("masks", self.masks, is_of_masks),
        ):
            check(
                (settings is not None) == is_needed,
                name,
                "missing" if settings is None else "given",
                f"{'given' if is_needed else 'null'} in the family {self.family}",
            )
            for shared in _SHARED_SETTINGS if settings is not None else ():
                check(
                    getattr(settings, shared) == getattr(self, shared),
                    f"{name}.{shared}",
                    getattr(settings, shared),
                    getattr(self, shared),
                )


def is_picture(name: str) -> bool:
    """Says whether an input is an image: uint8 RGB for the one who calls the model."""
    return name in (keys.IMAGE, keys.PREVIOUS_IMAGE)


def check(condition: bool, field: str, found: object, wanted: object) -> None:
    """Raises a `ModelFileError` unless a condition holds."""
    if not condition:
        raise ModelFileError(f"{field} is {found!r}; it must be {wanted}")


def _check_version(version: int) -> None:
    advice = (
        "a newer deeplab2-edge may read this file"
        if version > FORMAT_VERSION
        else "convert the checkpoint again with this deeplab2-edge"
    )
    check(
        version == FORMAT_VERSION,
        "format_version",
        version,
        f"{FORMAT_VERSION}; {advice}",
    )


def _check_shape(shape: tuple[int, ...]) -> None:
    check(
        1 <= len(shape) <= _MAX_RANK
        and all(side >= 1 for side in shape)
        and math.prod(shape) <= MAX_TENSOR_VALUES,
        "shape",
        list(shape),
        f"1 to {_MAX_RANK} positive sides of at most {MAX_TENSOR_VALUES} values",
    )


def _read_input(section: Fields) -> InputSpec:
    return InputSpec(
        name=section.get("name", fields.text),
        shape=section.get("shape", fields.integers),
        dtype=section.get("dtype", fields.text),
        range=section.get("range", fields.range_of_numbers),
    )


def _read_merge(
    section: Fields | None, shared: Mapping[str, Any]
) -> MergeSettings | None:
    if section is None:
        return None
    return MergeSettings(
        center_score_threshold=section.get("center_score_threshold", fields.number),
        nms_kernel=section.get("nms_kernel", fields.integer),
        keep_k_centers=section.get("keep_k_centers", fields.integer),
        stuff_area_limit=section.get("stuff_area_limit", fields.integer),
        merge_plateaus=section.get("merge_plateaus", fields.truth),
        **shared,
    )


def _read_masks(
    section: Fields | None, shared: Mapping[str, Any]
) -> MaskSettings | None:
    if section is None:
        return None
    maskwise = section.optional_section("maskwise")
    return MaskSettings(
        transformer_class_confidence_threshold=section.get(
            "transformer_class_confidence_threshold", fields.number
        ),
        pixel_confidence_threshold=section.get(
            "pixel_confidence_threshold", fields.number
        ),
        stuff_area_limit=section.get("stuff_area_limit", fields.integer),
        thing_area_limit=section.get("thing_area_limit", fields.integer),
        maskwise=None
        if maskwise is None
        else MaskwiseSettings(
            **{
                field.name: maskwise.get(field.name, fields.number)
                for field in dataclasses.fields(MaskwiseSettings)
            }
        ),
        **shared,
    )
