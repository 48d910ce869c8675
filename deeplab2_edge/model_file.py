"""Converted model files: a TFLite graph that knows everything needed to use it.

A file is an ordinary `.tflite` flatbuffer with a ZIP archive appended, which is how
TFLite carries associated files; every TFLite runtime ignores the archive. It holds

    deeplab2_edge.json   ModelMetadata: canvas, classes, merge settings, provenance
    golden.npz           optional: one canvas and the heads it must give (self test)

The metadata holds the SHA-256 of the flatbuffer. A file is read completely and
verified before any byte reaches an interpreter, because TFLite interpreters crash on
damaged flatbuffers instead of reporting them.
"""

import dataclasses
import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.errors import DataError, DeepLabEdgeError, ModelFileError
from deeplab2_edge.files import atomic_write
from deeplab2_edge.panoptic import MergeSettings

FORMAT_VERSION = 1
METADATA_NAME = "deeplab2_edge.json"
GOLDEN_NAME = "golden.npz"
HEAD_KEYS = (keys.SEMANTIC_LOGITS, keys.CENTER_HEATMAP, keys.OFFSET_MAP)

MAX_FILE_BYTES = 512 << 20
MAX_METADATA_BYTES = 1 << 20
MAX_GOLDEN_BYTES = 128 << 20
MAX_CANVAS_PIXELS = 16 << 20  # eight times the largest published canvas
MAX_CLASSES = 1024

_FLATBUFFER_MAGIC = b"TFL3"  # bytes 4 to 8 of every TFLite file
_INPUT_DTYPES = ("uint8", "int8", "float32")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # equal inputs give equal files
_HOW_TO_MAKE = "make one with `deeplab2-edge convert`"

# What zipfile, zlib and the npy reader raise on damaged or encrypted members.
_ARCHIVE_ERRORS = (
    zlib.error,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
)

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Describes the input tensor.

    Attributes:
        name: Tensor name in the graph.
        dtype: `uint8`, `int8` or `float32`.
        range: Lowest and highest pixel value the graph expects before quantization.
        layout: Always `NHWC`.
    """

    name: str
    dtype: str = "uint8"
    range: tuple[float, float] = (0.0, 255.0)
    layout: str = "NHWC"

    def __post_init__(self) -> None:
        _check(self.dtype in _INPUT_DTYPES, "input.dtype", self.dtype, _INPUT_DTYPES)
        _check(self.layout == "NHWC", "input.layout", self.layout, "NHWC")


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
            _check(
                pair is None or all(0 < side <= 1 << 16 for side in pair),
                f"resize.{name}",
                pair,
                "null or two positive sides",
            )
        _check(0 <= self.factor <= 4096, "resize.factor", self.factor, "0 to 4096")


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """Describes a converted model completely.

    Attributes:
        name: Short name for people.
        meta_architecture: For example `panoptic_deeplab`.
        backbone: For example `mobilenet_v3_small`.
        output_stride: Of the backbone.
        canvas: (height, width) of the input tensor.
        input: The input tensor.
        outputs: Tensor name of each head, by the names in `keys`.
        head_stride: Canvas pixels per head pixel: sides are `(side - 1) / stride + 1`.
        class_names: Name of each class; the index is the class id.
        colors: RGB color of each class.
        merge: Settings of the panoptic merge, including thing ids, label divisor and
            ignore label.
        resize: How images are brought to the canvas.
        quantization: For example `none`, `fp16`, `int8`.
        provenance: `checkpoint`, `config_sha256`, `created`, `tool_versions`.
        graph_sha256: Of the flatbuffer; `write_model_file` fills it in.

    Raises:
        ModelFileError: If a field makes no sense.
    """

    name: str
    meta_architecture: str
    backbone: str
    output_stride: int
    canvas: tuple[int, int]
    input: InputSpec
    outputs: Mapping[str, str]
    head_stride: int
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    merge: MergeSettings
    resize: ResizeRule = dataclasses.field(default_factory=ResizeRule)
    quantization: str = "none"
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    graph_sha256: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check(
            self.format_version == FORMAT_VERSION,
            "format_version",
            self.format_version,
            f"{FORMAT_VERSION}; a newer deeplab2-edge may read this file",
        )
        height, width = self.canvas
        _check(
            height > 1 and width > 1 and height * width <= MAX_CANVAS_PIXELS,
            "canvas",
            list(self.canvas),
            f"two sides above 1 and at most {MAX_CANVAS_PIXELS} pixels",
        )
        stride = self.head_stride
        _check(
            stride >= 1 and (height - 1) % stride == 0 and (width - 1) % stride == 0,
            "head_stride",
            stride,
            f"a divisor of the canvas sides minus one, {height - 1} and {width - 1}",
        )
        _check(self.output_stride >= 1, "output_stride", self.output_stride, "positive")
        _check(
            set(self.outputs) == set(HEAD_KEYS),
            "outputs",
            sorted(self.outputs),
            sorted(HEAD_KEYS),
        )
        count = len(self.class_names)
        _check(
            1 <= count <= MAX_CLASSES, "class_names", count, f"1 to {MAX_CLASSES} names"
        )
        _check(
            len(self.colors) == count
            and all(len(c) == 3 and all(0 <= v <= 255 for v in c) for c in self.colors),
            "colors",
            f"{len(self.colors)} entries",
            f"{count} RGB triples of 0 to 255",
        )
        _check(
            all(0 <= thing < count for thing in self.thing_ids),
            "thing_ids",
            list(self.thing_ids),
            f"class ids below {count}",
        )
        top = np.iinfo(np.int32).max
        _check(
            1 <= self.label_divisor
            and (max(count, self.ignore_label) + 1) * self.label_divisor <= top,
            "label_divisor",
            self.label_divisor,
            "positive, with every panoptic id within int32",
        )

    @property
    def num_classes(self) -> int:
        """Number of semantic classes."""
        return len(self.class_names)

    @property
    def thing_ids(self) -> tuple[int, ...]:
        """Class ids with instances."""
        return tuple(self.merge.thing_ids)

    @property
    def label_divisor(self) -> int:
        """A panoptic id is `class * label_divisor + instance`."""
        return self.merge.label_divisor

    @property
    def ignore_label(self) -> int:
        """Class id of pixels without a class (void)."""
        return self.merge.ignore_label

    @property
    def head_size(self) -> tuple[int, int]:
        """(height, width) of the heads."""
        height, width = self.canvas
        return (height - 1) // self.head_stride + 1, (width - 1) // self.head_stride + 1

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

    def to_json(self) -> str:
        """Writes the metadata as a JSON document."""
        document = dataclasses.asdict(self)
        merge = document["merge"]
        for name in ("thing_ids", "label_divisor", "ignore_label"):
            document[name] = merge.pop(name)
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
        fields = _Fields(document, "")
        version = fields.get("format_version", _integer)
        _check(
            version == FORMAT_VERSION,
            "format_version",
            version,
            f"{FORMAT_VERSION}; a newer deeplab2-edge may read this file",
        )
        model_input = fields.section("input")
        resize = fields.section("resize")
        merge = fields.section("merge")
        return cls(
            name=fields.get("name", _text),
            meta_architecture=fields.get("meta_architecture", _text),
            backbone=fields.get("backbone", _text),
            output_stride=fields.get("output_stride", _integer),
            canvas=fields.get("canvas", _pair),
            input=InputSpec(
                name=model_input.get("name", _text),
                dtype=model_input.get("dtype", _text),
                range=model_input.get("range", _range),
                layout=model_input.get("layout", _text),
            ),
            outputs=fields.get("outputs", _text_map),
            head_stride=fields.get("head_stride", _integer),
            class_names=fields.get("class_names", _texts),
            colors=fields.get("colors", _colors),
            merge=MergeSettings(
                thing_ids=fields.get("thing_ids", _integers),
                label_divisor=fields.get("label_divisor", _integer),
                ignore_label=fields.get("ignore_label", _integer),
                center_score_threshold=merge.get("center_score_threshold", _number),
                nms_kernel=merge.get("nms_kernel", _integer),
                keep_k_centers=merge.get("keep_k_centers", _integer),
                stuff_area_limit=merge.get("stuff_area_limit", _integer),
                merge_plateaus=merge.get("merge_plateaus", _truth),
            ),
            resize=ResizeRule(
                min=resize.get("min", _pair_or_none),
                max=resize.get("max", _pair_or_none),
                factor=resize.get("factor", _integer),
            ),
            quantization=fields.get("quantization", _text),
            provenance=fields.get("provenance", _mapping),
            graph_sha256=fields.get("graph_sha256", _text),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """Holds one input and the heads the model must give for it.

    Attributes:
        canvas: uint8 `[H, W, 3]`.
        heads: float32 `[h, w, C]` by the names in `keys`; C is 1 for centers.
    """

    canvas: NDArray[np.uint8]
    heads: Mapping[str, NDArray[np.float32]]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile:
    """Is a converted model in memory, verified.

    Attributes:
        graph: The TFLite flatbuffer alone.
        metadata: What is known about it.
        golden: The self test, if the file has one.
        path: Where it was read from.
    """

    graph: bytes
    metadata: ModelMetadata
    golden: Golden | None = None
    path: Path | None = None


def write_model_file(
    path: str | os.PathLike[str],
    graph: bytes,
    metadata: ModelMetadata,
    golden: Golden | None = None,
) -> ModelMetadata:
    """Writes a model file at once or not at all.

    Args:
        path: Target; an existing file is replaced.
        graph: The TFLite flatbuffer.
        metadata: `graph_sha256` is filled in.
        golden: A self test to carry along.

    Returns:
        The metadata as written.

    Raises:
        ModelFileError: If `graph` is not a TFLite flatbuffer or `golden` does not
            fit the metadata.
        OutputError: If the file cannot be written.
    """
    _check_magic(graph)
    if golden is not None:
        _check_golden(golden, metadata)
    metadata = dataclasses.replace(
        metadata, graph_sha256=hashlib.sha256(graph).hexdigest()
    )
    members = [(METADATA_NAME, metadata.to_json().encode())]
    if golden is not None:
        members.append((GOLDEN_NAME, _pack_golden(golden)))
    content = io.BytesIO()
    content.write(graph)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(
                zipfile.ZipInfo(name, _ZIP_DATE), data, zipfile.ZIP_DEFLATED
            )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return metadata


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Reads and verifies a model file.

    Raises:
        ModelFileError: If the file is missing, too large, not TFLite, not ours, cut
            off or damaged. The message names the file and what to do.
    """
    source = Path(path)
    content = read_graph_bytes(source)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if METADATA_NAME not in members:
                raise ModelFileError(
                    "a TFLite file that deeplab2-edge did not write (it has no "
                    f"{METADATA_NAME}); {_HOW_TO_MAKE}"
                )
            graph = content[: min(info.header_offset for info in members.values())]
            metadata = ModelMetadata.from_json(
                _read_member(archive, members[METADATA_NAME], MAX_METADATA_BYTES)
            )
            _check_digest(graph, metadata)
            golden = None
            if GOLDEN_NAME in members:
                golden = _unpack_golden(
                    _read_member(archive, members[GOLDEN_NAME], MAX_GOLDEN_BYTES)
                )
                _check_golden(golden, metadata)
    except DeepLabEdgeError as error:
        raise ModelFileError(f"{source}: {error}") from None
    except zipfile.BadZipFile:
        raise ModelFileError(
            f"{source}: a TFLite file without deeplab2-edge metadata: not written by "
            f"deeplab2-edge, or cut off while copying; copy it again or {_HOW_TO_MAKE}"
        ) from None
    except _ARCHIVE_ERRORS as error:
        raise ModelFileError(
            f"{source}: the appended archive is damaged ({error}); copy it again"
        ) from None
    return ModelFile(graph=graph, metadata=metadata, golden=golden, path=source)


def read_graph_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads any TFLite file, ours or not, within the size limit.

    Raises:
        ModelFileError: If the file is missing, too large or not TFLite.
    """
    source = Path(path)
    try:
        if source.is_dir():
            raise ModelFileError(f"{source}: a folder; give a .tflite file")
        size = source.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"{source}: {size} bytes; a model file has at most {MAX_FILE_BYTES}"
            )
        with source.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        what = (
            "the name of a checkpoint, not a converted model"
            if str(source) == "demo"
            else "no such file"
        )
        raise ModelFileError(
            f"{source}: {what}; give a .tflite file, or {_HOW_TO_MAKE}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{source}: cannot be read ({reason})") from None
    try:
        _check_magic(content)
    except ModelFileError as error:
        raise ModelFileError(f"{source}: {error}") from None
    return content


def _check(condition: bool, field: str, found: object, wanted: object) -> None:
    if not condition:
        raise ModelFileError(f"{field} is {found!r}; it must be {wanted}")


def _check_magic(graph: bytes) -> None:
    if graph[4:8] != _FLATBUFFER_MAGIC:
        raise ModelFileError(
            f"not a TFLite file ({len(graph)} bytes, starts with {graph[:8]!r}); "
            f"{_HOW_TO_MAKE}"
        )


def _check_digest(graph: bytes, metadata: ModelMetadata) -> None:
    if not re.fullmatch("[0-9a-f]{64}", metadata.graph_sha256):
        raise ModelFileError("graph_sha256 must be 64 hexadecimal digits")
    if hashlib.sha256(graph).hexdigest() != metadata.graph_sha256:
        raise ModelFileError(
            "damaged: the graph does not have the SHA-256 in its metadata; "
            "copy or convert it again"
        )


def _check_golden(golden: Golden, metadata: ModelMetadata) -> None:
    expected = {"canvas": (*metadata.canvas, 3)}
    for name, channels in (
        (keys.SEMANTIC_LOGITS, metadata.num_classes),
        (keys.CENTER_HEATMAP, 1),
        (keys.OFFSET_MAP, 2),
    ):
        expected[name] = (*metadata.head_size, channels)
    arrays: dict[str, NDArray[Any]] = {"canvas": golden.canvas, **golden.heads}
    for name, array in arrays.items():
        _check(
            array.shape == expected[name],
            f"{GOLDEN_NAME}: shape of {name}",
            list(array.shape),
            list(expected[name]),
        )


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.file_size <= limit:
        with archive.open(info) as stream:
            data = stream.read(limit + 1)  # never trusts the declared size
        if len(data) <= limit:
            return data
    raise ModelFileError(f"{info.filename} is larger than {limit} bytes")


def _pack_golden(golden: Golden) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {"canvas": golden.canvas, **golden.heads}.items():
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(array), allow_pickle=False
            )
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE), member.getvalue()
            )
    return buffer.getvalue()


def _unpack_golden(data: bytes) -> Golden:
    """Reads an npz without trusting the sizes it declares."""
    arrays: dict[str, NDArray[Any]] = {}
    budget = MAX_GOLDEN_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            member = _read_member(archive, info, budget)
            budget -= len(member)
            arrays[info.filename.removesuffix(".npy")] = _parse_npy(
                member, info.filename
            )
    canvas = arrays.pop("canvas", np.zeros(0))
    if (
        canvas.dtype != np.uint8
        or canvas.ndim != 3
        or not set(arrays) <= set(HEAD_KEYS)
    ):
        raise ModelFileError(f"{GOLDEN_NAME} must hold a uint8 canvas and heads")
    return Golden(canvas=canvas, heads=arrays)


def _parse_npy(data: bytes, name: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ModelFileError(f"{GOLDEN_NAME}: {name} has an unknown npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    size = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    if (
        fortran
        or dtype not in (np.uint8, np.float32)
        or size != len(data) - stream.tell()
    ):
        raise ModelFileError(f"{GOLDEN_NAME}: {name} is damaged")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)


class _Fields:
    """Reads typed fields of a JSON object and names the field that is wrong."""

    def __init__(self, document: object, prefix: str) -> None:
        if not isinstance(document, dict):
            raise ModelFileError(f"{prefix or METADATA_NAME} must be a JSON object")
        self._document = document
        self._prefix = prefix

    def get(self, name: str, parse: Callable[[Any], _T]) -> _T:
        field = f"{self._prefix}.{name}" if self._prefix else name
        if name not in self._document:
            raise ModelFileError(f"{METADATA_NAME}: {field} is missing")
        value = self._document[name]
        try:
            return parse(value)
        except (TypeError, ValueError, OverflowError):
            wanted = parse.__name__.strip("_").replace("_", " ")
            raise ModelFileError(
                f"{METADATA_NAME}: {field} is {str(value)[:80]!r}, not {wanted}"
            ) from None

    def section(self, name: str) -> "_Fields":
        return _Fields(self.get(name, _mapping), name)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 31:
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _text_map(value: Any) -> dict[str, str]:
    return {name: _text(entry) for name, entry in _mapping(value).items()}


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(entry) for entry in _items(value))


def _integers(value: Any) -> tuple[int, ...]:
    return tuple(_integer(entry) for entry in _items(value))


def _pair(value: Any) -> tuple[int, int]:
    height, width = _integers(value)
    return height, width


def _pair_or_none(value: Any) -> tuple[int, int] | None:
    return None if value is None else _pair(value)


def _range(value: Any) -> tuple[float, float]:
    low, high = (_number(entry) for entry in _items(value))
    return low, high


def _colors(value: Any) -> tuple[tuple[int, int, int], ...]:
    colors = [_integers(entry) for entry in _items(value)]
    return tuple((red, green, blue) for red, green, blue in colors)
