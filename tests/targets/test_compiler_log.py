"""Logs of the Edge TPU compiler, written by hand in its words."""

from pathlib import Path

import pytest

from deeplab2_edge.errors import DataError
from deeplab2_edge.targets import check_graph, compare, read_compiler_log
from deeplab2_edge.targets.compiler_log import (
    MAX_LOG_BYTES,
    is_of_same_network,
    parse_compiler_log,
)
from tests.targets.one_op import OpSpec, TensorSpec, model

pytest.importorskip("ai_edge_litert.schema_py_generated")

PRINTED = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1354 ms.

Input model: street.tflite
Input size: 5.10MiB
Output model: street_edgetpu.tflite
Output size: 6.28MiB
On-chip memory used for caching model parameters: 6.03MiB
On-chip memory remaining for caching model parameters: 1.50KiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 4
Operation log: street_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU.
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 2

Operator                       Count      Status

ADD                            1          Mapped to Edge TPU
TANH                           1          Mapped to Edge TPU
HARD_SWISH                     1          Operation not supported
TANH                           1          More than one subgraph is not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def network(*names: str) -> bytes:
    tensors = [TensorSpec([1, 8, 8, 4]) for _ in range(len(names) + 1)]
    ops = [
        OpSpec(name, [i] * (2 if name == "ADD" else 1), [i + 1])
        for i, name in enumerate(names)
    ]
    return model(tensors, ops, [0], [len(names)])


CHECK = check_graph(network("ADD", "TANH", "HARD_SWISH", "TANH"), "edgetpu")


def test_what_the_compiler_prints_is_read() -> None:
    log = parse_compiler_log(PRINTED)
    assert log.version == "16.0.384591198"
    assert (log.num_on_tpu, log.num_on_cpu, log.num_subgraphs) == (2, 2, 1)
    assert log.cached_bytes == round(6.03 * 2**20)
    assert (log.remaining_bytes, log.streamed_bytes) == (1536, 0)
    assert [(row.op, row.count, row.is_mapped) for row in log.rows] == [
        ("ADD", 1, True),
        ("TANH", 1, True),
        ("HARD_SWISH", 1, False),
        ("TANH", 1, False),
    ]
    assert log.errors == ()


def test_a_right_prediction_has_no_differences() -> None:
    log = parse_compiler_log(PRINTED)
    assert is_of_same_network(CHECK, log) and compare(CHECK, log) == []


def test_differences_say_what_the_compiler_says() -> None:
    refused = PRINTED.replace(
        "ADD                            1          Mapped to Edge TPU",
        "ADD                            1          Operation is otherwise supported, "
        "but not mapped due to some unspecified limitation",
    )
    (difference,) = compare(CHECK, parse_compiler_log(refused))
    assert (difference.op, difference.predicted, difference.mapped) == ("ADD", 1, 0)
    assert "unspecified limitation" in difference.statuses[0]


def test_the_log_of_another_network_is_noticed() -> None:
    other = PRINTED.replace("ADD     ", "SUB     ")
    assert not is_of_same_network(CHECK, parse_compiler_log(other))


def test_the_log_file_counts_its_table() -> None:
    table = PRINTED[PRINTED.index("Operator   ") :]
    log = parse_compiler_log(f"Edge TPU Compiler version 15.0.340273435\n\n{table}")
    assert (log.num_on_tpu, log.num_on_cpu, log.cached_bytes) == (2, 2, None)


@pytest.mark.parametrize(
    "status",
    [
        "Mapped to Edge TPU",
        "Operation not supported",
        "Operation is otherwise supported, but not mapped due to some unspecified "
        "limitation",
        "More than one subgraph is not supported",
        "Operation version not supported",
        "Operation is working on an unsupported data type",
        "Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
        "Image-interpolation layer won't run precisely enough on Edge TPU",
    ],
)
def test_every_status_is_kept_as_it_is(status: str) -> None:
    text = f"Operator   Count   Status\n\nRESIZE_BILINEAR     3      {status}\n"
    (row,) = parse_compiler_log(text).rows
    assert (row.status, row.is_mapped) == (status, status == "Mapped to Edge TPU")


def test_a_failure_is_an_error_line() -> None:
    text = "Edge TPU Compiler version 16.0\nInternal compiler error. Aborting!\n"
    assert parse_compiler_log(text).errors == ("Internal compiler error. Aborting!",)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_compiler_log(tmp_path / "none.log")
    path = tmp_path / "x.log"
    path.write_bytes(b"\xff\x00 nothing of use")
    with pytest.raises(DataError, match="no table with the columns"):
        read_compiler_log(path)
    path.write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    with pytest.raises(DataError, match="at most"):
        read_compiler_log(path)
