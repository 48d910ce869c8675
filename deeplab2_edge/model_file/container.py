"""Converted model files: a graph that carries everything needed to use it.

A TFLite file is an ordinary flatbuffer with a ZIP archive appended, which is how
TFLite carries associated files; every TFLite runtime ignores the archive. An ONNX file
is an ordinary model with properties appended, in which every reader sees
`metadata_props`. Either holds

    deeplab2_edge.json   ModelMetadata: tensors, classes, settings, provenance
    golden.npz           optional: one input and what it must give (self test)

The metadata holds the SHA-256 of the graph. A file is read completely and verified
before any byte reaches a runtime, because TFLite interpreters crash on damaged
flatbuffers instead of reporting them.
"""

import base64
import binascii
import dataclasses
import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

from deeplab2_edge.errors import DeepLabEdgeError, ModelFileError
from deeplab2_edge.files import atomic_write
from deeplab2_edge.graph_limits import GraphLimits
from deeplab2_edge.model_file.golden import (
    GOLDEN_NAME,
    MAX_GOLDEN_BYTES,
    ZIP_DATE,
    Golden,
    check_golden,
    pack_golden,
    read_member,
    unpack_golden,
)
from deeplab2_edge.model_file.metadata import METADATA_NAME, ModelMetadata
from deeplab2_edge.onnx_file import (
    append_properties,
    graph_length,
    is_onnx,
    read_properties,
)
from deeplab2_edge.saved_models import NOTICE, is_saved_model

TFLITE = "tflite"
ONNX = "onnx"
MAX_FILE_BYTES = 512 << 20
MAX_METADATA_BYTES = 1 << 20

_FLATBUFFER_MAGIC = b"TFL3"  # bytes 4 to 8 of every TFLite file
_GOLDEN_PROPERTY = "deeplab2_edge.golden"  # base64 of the same archive, deflated
# Of the other two; the members of a ZIP archive have checksums of their own.
_DIGEST_PROPERTY = "deeplab2_edge.sha256"
_HOW_TO_MAKE = "make one with `deeplab2-edge convert`"

# What zipfile, zlib and the npy reader raise on damaged or encrypted members.
_ARCHIVE_ERRORS = (
    zlib.error,
    binascii.Error,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFile:
    """Is a converted model in memory, verified.

    Attributes:
        graph: The TFLite flatbuffer or ONNX model alone.
        metadata: What is known about it.
        golden: The self test, if the file has one.
        path: Where it was read from.
        allow_ops: Ops that may be in it beside those that `convert` writes.
        limits: Of the memory that the graph may take.
    """

    graph: bytes
    metadata: ModelMetadata
    golden: Golden | None = None
    path: Path | None = None
    allow_ops: tuple[str, ...] = ()
    limits: GraphLimits = GraphLimits()

    @property
    def format(self) -> str:
        """`tflite` or `onnx`."""
        return format_of(self.graph)

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return str(self.path or self.metadata.name)


def write_model_file(
    path: str | os.PathLike[str],
    graph: bytes,
    metadata: ModelMetadata,
    golden: Golden | None = None,
) -> ModelMetadata:
    """Writes a model file at once or not at all.

    Args:
        path: Target; an existing file is replaced.
        graph: The TFLite flatbuffer or ONNX model.
        metadata: `graph_sha256` is filled in.
        golden: A self test to carry along.

    Returns:
        The metadata as written.

    Raises:
        ModelFileError: If `graph` is neither or `golden` does not fit the metadata.
        OutputError: If the file cannot be written.
    """
    kind = format_of(graph)
    if golden is not None:
        check_golden(golden, metadata)
    metadata = dataclasses.replace(
        metadata, graph_sha256=hashlib.sha256(graph).hexdigest()
    )
    content = join_file(kind, graph, metadata.to_json(), golden)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return metadata


def join_file(kind: str, graph: bytes, text: str, golden: Golden | None) -> bytes:
    """Puts together what a model file consists of, without looking into it.

    Args:
        kind: `TFLITE` or `ONNX`.
        graph: Of that format.
        text: The metadata, with the digest of the graph.
        golden: The self test, if there is one.

    Raises:
        ModelFileError: If properties cannot be added to an ONNX graph.
    """
    packed = None if golden is None else pack_golden(golden)
    join = _join_onnx if kind == ONNX else _join_tflite
    return join(graph, text, packed)


def read_model_file(
    path: str | os.PathLike[str],
    *,
    allow_ops: Collection[str] = (),
    limits: GraphLimits | None = None,
) -> ModelFile:
    """Reads and verifies a model file.

    Args:
        path: Of the file.
        allow_ops: Ops that may be in it beside those that `convert` writes, see
            `check_graph`; for files that you trust.
        limits: Of the memory that the graph may take.

    Raises:
        ModelFileError: If the file is missing, too large, neither TFLite nor ONNX, not
            ours, cut off or damaged. The message names the file and what to do.
    """
    source = Path(path)
    content = read_graph_bytes(source)
    try:
        split = _split_onnx if format_of(content) == ONNX else _split_tflite
        graph, text, packed = split(content)
        metadata = ModelMetadata.from_json(text)
        _check_digest(graph, metadata)
        golden = None
        if packed is not None:
            golden = unpack_golden(packed)
            check_golden(golden, metadata)
    except DeepLabEdgeError as error:
        raise ModelFileError(f"{source}: {error}") from None
    except zipfile.BadZipFile:
        raise ModelFileError(
            f"{source}: a TFLite file without deeplab2-edge metadata: not written by "
            f"deeplab2-edge, or cut off while copying; copy it again or {_HOW_TO_MAKE}"
        ) from None
    except _ARCHIVE_ERRORS as error:
        raise ModelFileError(
            f"{source}: what is appended to the graph is damaged ({error}); copy it "
            "again"
        ) from None
    return ModelFile(
        graph=graph,
        metadata=metadata,
        golden=golden,
        path=source,
        allow_ops=tuple(allow_ops),
        limits=limits or GraphLimits(),
    )


def read_graph_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads any TFLite or ONNX file, ours or not, within the size limit.

    Raises:
        ModelFileError: If the file is missing, too large or neither.
    """
    source = Path(path)
    try:
        is_folder = source.is_dir()
        if is_folder or is_saved_model(source):
            what = "a folder; give a .tflite or .onnx file"
            raise ModelFileError(
                f"{source}: {NOTICE if is_saved_model(source) else what}"
            )
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
            f"{source}: {what}; give a .tflite or .onnx file, or {_HOW_TO_MAKE}"
        ) from None
    except ModelFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{source}: cannot be read ({reason})") from None
    try:
        format_of(content)
    except ModelFileError as error:
        raise ModelFileError(f"{source}: {error}") from None
    return content


def format_of(content: bytes) -> str:
    """Says what bytes are, `tflite` or `onnx`.

    Raises:
        ModelFileError: If they are neither.
    """
    if content[4:8] == _FLATBUFFER_MAGIC:
        return TFLITE
    if is_onnx(content):
        return ONNX
    raise ModelFileError(
        f"neither a TFLite nor an ONNX file ({len(content)} bytes, starts with "
        f"{content[:8]!r}); {_HOW_TO_MAKE}"
    )


def _join_tflite(graph: bytes, text: str, golden: bytes | None) -> bytes:
    members = [(METADATA_NAME, text.encode())]
    if golden is not None:
        members.append((GOLDEN_NAME, golden))
    content = io.BytesIO()
    content.write(graph)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(
                zipfile.ZipInfo(name, ZIP_DATE), data, zipfile.ZIP_DEFLATED
            )
    return content.getvalue()


def _split_tflite(content: bytes) -> tuple[bytes, bytes, bytes | None]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if METADATA_NAME not in members:
            raise ModelFileError(
                "a TFLite file that deeplab2-edge did not write (it has no "
                f"{METADATA_NAME}); {_HOW_TO_MAKE}"
            )
        graph = content[: min(info.header_offset for info in members.values())]
        text = read_member(archive, members[METADATA_NAME], MAX_METADATA_BYTES)
        golden = None
        if GOLDEN_NAME in members:
            golden = read_member(archive, members[GOLDEN_NAME], MAX_GOLDEN_BYTES)
    return graph, text, golden


def _join_onnx(graph: bytes, text: str, golden: bytes | None) -> bytes:
    properties = {METADATA_NAME: text}
    if golden is not None:
        packed = zlib.compress(golden, 9)
        properties[_GOLDEN_PROPERTY] = base64.b64encode(packed).decode()
    properties[_DIGEST_PROPERTY] = _digest_of(properties)
    return append_properties(graph, properties)


def _split_onnx(content: bytes) -> tuple[bytes, bytes, bytes | None]:
    properties = read_properties(content)
    if METADATA_NAME not in properties:
        raise ModelFileError(
            "an ONNX file that deeplab2-edge did not write (it has no property "
            f"{METADATA_NAME}); {_HOW_TO_MAKE}"
        )
    if properties.get(_DIGEST_PROPERTY) != _digest_of(properties):
        raise ModelFileError(
            "damaged: its properties do not have the SHA-256 that stands beside them; "
            "copy or convert it again"
        )
    text = properties[METADATA_NAME].encode()
    if len(text) > MAX_METADATA_BYTES:
        raise ModelFileError(f"{METADATA_NAME} is larger than {MAX_METADATA_BYTES}")
    golden = None
    if _GOLDEN_PROPERTY in properties:
        packed = base64.b64decode(properties[_GOLDEN_PROPERTY], validate=True)
        unpacker = zlib.decompressobj()
        golden = unpacker.decompress(packed, MAX_GOLDEN_BYTES)
        if not unpacker.eof:
            raise ModelFileError(
                f"{_GOLDEN_PROPERTY} is cut off or larger than {MAX_GOLDEN_BYTES}"
            )
    return content[: graph_length(content)], text, golden


def _digest_of(properties: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in (METADATA_NAME, _GOLDEN_PROPERTY):
        digest.update(properties.get(name, "").encode() + b"\0")
    return digest.hexdigest()


def _check_digest(graph: bytes, metadata: ModelMetadata) -> None:
    if not re.fullmatch("[0-9a-f]{64}", metadata.graph_sha256):
        raise ModelFileError("graph_sha256 must be 64 hexadecimal digits")
    if hashlib.sha256(graph).hexdigest() != metadata.graph_sha256:
        raise ModelFileError(
            "damaged: the graph does not have the SHA-256 in its metadata; "
            "copy or convert it again"
        )
