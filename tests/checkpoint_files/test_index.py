"""The index of a checkpoint is read without TensorFlow, and never believed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge import assets
from deeplab2_edge.checkpoint_files.index import read_index
from deeplab2_edge.errors import CheckpointError
from tests.checkpoint_files import tables

DEMO_INDEX = Path(assets.demo_checkpoint_prefix() + ".index").read_bytes()


def test_the_shipped_checkpoint_is_read() -> None:
    entries = read_index(assets.demo_checkpoint_prefix())
    kernel = entries["encoder/_blocks/0/_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE"]
    assert (kernel.dtype, kernel.shape) == ("float16", (3, 3, 3, 16))
    bias = entries["semantic_last_layer/bias/.ATTRIBUTES/VARIABLE_VALUE"]
    assert (bias.dtype, bias.shape, bias.size) == ("float32", (11,), 44)


@pytest.mark.tf
def test_tensorflow_reads_the_same() -> None:
    tf = pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    prefix = assets.demo_checkpoint_prefix()
    found = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    assert {k: tuple(v) for k, v in found.items()} == {
        key: entry.shape for key, entry in read_index(prefix).items()
    }


def test_blocks_and_data_files_may_be_many(tmp_path: Path) -> None:
    prefix = tables.write_checkpoint(tmp_path / "ckpt", {}, num_shards=3)
    content = tables.table(
        [(b"", tables.header(3)), (b"a", tables.entry([2]))],
        [(b"b", tables.entry([], shard=2)), (b"c", tables.entry([2, 0]))],
    )
    Path(f"{prefix}.index").write_bytes(content)
    entries = read_index(prefix)
    assert {key: entry.shape for key, entry in entries.items()} == {
        "a": (2,),
        "b": (),
        "c": (2, 0),
    }
    assert entries["b"].shard == 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (tables.entry([-5], size=12), "impossible shape"),
        (tables.entry([1 << 40, 1 << 40], size=12), "declares a tensor of"),
        (tables.entry([1 << 34], size=1 << 36), "declares a tensor of 68719476736"),
        (tables.entry([1] * 300), "impossible shape"),
        (tables.entry([3], size=8), "has 8 bytes and a shape of 12"),
        (tables.entry([3], dtype=99), "unknown type, number 99"),
        (tables.entry([3], shard=1), "data file 1 of 1"),
        (tables.entry([3], offset=-1), "begins at byte"),
        (tables.entry([3], extra=tables.bytes_field(7, b"")), "stored in slices"),
        (b"\xff\xff\xff", "index out of range"),
        (b"\x0a\x7f", "cut short"),
        (b"\x0b", "damaged"),
    ],
)
def test_impossible_entries_never_reach_tensorflow(
    entry: bytes, message: str, tmp_path: Path
) -> None:
    prefix = tables.write_checkpoint(tmp_path / "ckpt", {"a/kernel": entry})
    with pytest.raises(CheckpointError, match=rf"ckpt\.index: cannot be.*{message}"):
        read_index(prefix)


def test_blocks_that_overlap_are_refused(tmp_path: Path) -> None:
    prefix = tables.write_checkpoint(tmp_path / "ckpt", {})
    block = tables.block([(b"", tables.header())])
    place = tables.varint(0) + tables.varint(len(block) - 5)
    content = tables.finish(block, [(b"a", place)] * 1000)
    Path(f"{prefix}.index").write_bytes(content)
    with pytest.raises(CheckpointError, match="blocks overlap"):
        read_index(prefix)


def test_keys_must_be_sorted(tmp_path: Path) -> None:
    prefix = tables.write_checkpoint(tmp_path / "ckpt", {})
    rows = [(b"", tables.header()), (b"a", tables.entry([])), (b"a", tables.entry([]))]
    Path(f"{prefix}.index").write_bytes(tables.table(rows))
    with pytest.raises(CheckpointError, match="not sorted"):
        read_index(prefix)


def test_missing_data_files_are_named(tmp_path: Path) -> None:
    prefix = tables.write_checkpoint(
        tmp_path / "ckpt", {"a": tables.entry([2])}, num_shards=4
    )
    Path(f"{prefix}.data-00001-of-00004").unlink()
    Path(f"{prefix}.data-00003-of-00004").unlink()
    with pytest.raises(
        CheckpointError,
        match="2 of its 4 data files missing, "
        "ckpt.data-00001-of-00004, ckpt.data-00003-of-00004",
    ):
        read_index(prefix)


def test_a_data_file_cut_short_is_named(tmp_path: Path) -> None:
    prefix = tables.write_checkpoint(
        tmp_path / "ckpt", {"a": tables.entry([2000], offset=100)}
    )
    with pytest.raises(CheckpointError, match=r"00001: cut short, it has 4096.*8100"):
        read_index(prefix)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(DEMO_INDEX) - 1), st.integers(0, 255)), max_size=8
    ),
    end=st.integers(0, len(DEMO_INDEX)),
    keep_footer=st.booleans(),
)
def test_a_damaged_index_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    end: int,
    keep_footer: bool,
) -> None:
    content = bytearray(DEMO_INDEX)
    for position, value in changes:
        content[position] = value
    damaged = content[:end] + (DEMO_INDEX[-48:] if keep_footer else b"")
    prefix = tmp_path_factory.getbasetemp() / "damaged"
    Path(f"{prefix}.index").write_bytes(damaged)
    try:
        read_index(str(prefix))
    except CheckpointError as error:
        assert "damaged" in str(error)
