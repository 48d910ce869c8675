"""The self test of a model file: one input, and the heads that it must give."""

import dataclasses
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.model_file.metadata import ModelMetadata, check

GOLDEN_NAME = "golden.npz"
MAX_GOLDEN_BYTES = 128 << 20
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # equal inputs give equal files

_INPUTS, _HEADS = "inputs/", "heads/"
_DTYPES = (np.uint8, np.int32, np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """Holds one input and the outputs the model must give for it.

    Attributes:
        inputs: As `ModelMetadata.check_inputs` wants them.
        heads: Arrays `[h, w, C]` without batch, by the names in `keys`.
    """

    inputs: Mapping[str, NDArray[Any]]
    heads: Mapping[str, NDArray[Any]]


def check_golden(golden: Golden, metadata: ModelMetadata) -> None:
    """Refuses a self test that does not fit the model.

    Raises:
        ModelFileError: If a name or shape is another one.
    """
    for kind, arrays, specs in (
        (_INPUTS, golden.inputs, metadata.inputs),
        (_HEADS, golden.heads, metadata.outputs),
    ):
        check(
            set(arrays) == set(specs),
            f"{GOLDEN_NAME}: {kind}",
            sorted(arrays),
            sorted(specs),
        )
        for name, array in arrays.items():
            check(
                array.shape == specs[name].shape,
                f"{GOLDEN_NAME}: shape of {name}",
                list(array.shape),
                list(specs[name].shape),
            )


def pack_golden(golden: Golden) -> bytes:
    """Writes the self test as an uncompressed `.npz`."""
    arrays = {_INPUTS + n: a for n, a in golden.inputs.items()}
    arrays |= {_HEADS + n: a for n, a in golden.heads.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(array), allow_pickle=False
            )
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", ZIP_DATE), member.getvalue()
            )
    return buffer.getvalue()


def unpack_golden(data: bytes) -> Golden:
    """Reads an `.npz` without trusting the sizes it declares.

    Raises:
        ModelFileError: If it is damaged or not a self test.
    """
    inputs: dict[str, NDArray[Any]] = {}
    heads: dict[str, NDArray[Any]] = {}
    budget = MAX_GOLDEN_BYTES
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            member = read_member(archive, info, budget)
            budget -= len(member)
            name = info.filename.removesuffix(".npy")
            array = _parse_npy(member, info.filename)
            if name.startswith(_INPUTS):
                inputs[name.removeprefix(_INPUTS)] = array
            elif name.startswith(_HEADS):
                heads[name.removeprefix(_HEADS)] = array
            else:
                raise ModelFileError(f"{GOLDEN_NAME} must hold inputs and heads")
    return Golden(inputs, heads)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """Reads a member of an archive.

    Raises:
        ModelFileError: If it has more bytes than `limit`, whatever it declares.
    """
    if info.file_size <= limit:
        with archive.open(info) as stream:
            data = stream.read(limit + 1)  # never trusts the declared size
        if len(data) <= limit:
            return data
    raise ModelFileError(f"{info.filename} is larger than {limit} bytes")


def _parse_npy(data: bytes, name: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ModelFileError(f"{GOLDEN_NAME}: {name} has an unknown npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    size = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    if fortran or dtype not in _DTYPES or size != len(data) - stream.tell():
        raise ModelFileError(f"{GOLDEN_NAME}: {name} is damaged")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
