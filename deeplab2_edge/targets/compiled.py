"""Gives a file that the Edge TPU compiler made what its source knows.

The compiler reads and writes flatbuffers alone: metadata and self test of a model file
do not reach what it writes, and no runtime of ours would take it.
"""

import dataclasses
import os
from pathlib import Path

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.model_file import (
    METADATA_NAME,
    ModelFile,
    ModelMetadata,
    read_graph_bytes,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.targets.edge_tpu import CUSTOM_OP, compiler_command
from deeplab2_edge.tflite_file.graph import Graph, Tensor, read_graph

# The archive of a model file names its members at its end.
_ARCHIVE_END_BYTES = 1 << 16


def has_metadata(content: bytes) -> bool:
    """Tells whether a TFLite file carries metadata of ours, whole or not."""
    return METADATA_NAME.encode() in content[-_ARCHIVE_END_BYTES:]


def adopt_compiled(
    path: str | os.PathLike[str], source: ModelFile
) -> tuple[ModelMetadata, Graph]:
    """Writes metadata and self test of a model file into its compiled form.

    Args:
        path: What the compiler wrote; replaced at once or not at all.
        source: What it was made of.

    Returns:
        The metadata as written, and the compiled network.

    Raises:
        ModelFileError: If one of the files cannot be read, `path` is not compiled, or
            has other inputs and outputs than `source`.
        OutputError: If the file cannot be written.
    """
    content = read_graph_bytes(path)
    if has_metadata(content):  # given before
        content = read_model_file(path).graph
    try:
        compiled, original = read_graph(content), read_graph(source.graph)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    if not any(op.name == CUSTOM_OP for op in compiled.ops):
        raise ModelFileError(
            f"{path}: no op {CUSTOM_OP}, so it is not compiled, or nothing of it maps; "
            f"make it with `{compiler_command(source.label)}`"
        )
    for what, found, expected in (
        ("inputs", compiled.inputs, original.inputs),
        ("outputs", compiled.outputs, original.outputs),
    ):
        if (has := _described(found)) != (wants := _described(expected)):
            raise ModelFileError(
                f"{path}: its {what} are {', '.join(has)}; {source.label} has "
                f"{', '.join(wants)}: it was made of another file"
            )
    metadata = dataclasses.replace(
        source.metadata,
        provenance={
            **source.metadata.provenance,
            "compiled_of_sha256": source.metadata.graph_sha256,
        },
    )
    return write_model_file(Path(path), content, metadata, source.golden), compiled


def _described(tensors: tuple[Tensor, ...]) -> list[str]:
    """Describes tensors, in an order of their own."""
    return sorted(
        f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in tensors
    )
