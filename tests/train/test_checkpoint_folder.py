"""Checkpoints of a run: found by their files, kept when the disk is full."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

import tensorflow as tf

from deeplab2_edge.errors import CheckpointError, OutputError
from deeplab2_edge.train import trainer
from deeplab2_edge.train.checkpoint_folder import (
    name_newest,
    newest_checkpoint,
    readable_write_errors,
    remove_unfinished,
    whole_checkpoints,
)
from tests.train.small_run import experiment, write_scenes

pytestmark = pytest.mark.tf


def write_checkpoints(folder: Path, *steps: int) -> None:
    checkpoint = tf.train.Checkpoint(values=tf.Variable(tf.zeros([1000])))
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=9)
    for step in steps:
        manager.save(step)


def names(prefixes: list[str]) -> list[str]:
    return [Path(prefix).name for prefix in prefixes]


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Lets the system refuse larger files, as it refuses all on a full disk."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_nothing_names_yet_is_found(tmp_path: Path) -> None:
    write_checkpoints(tmp_path, 2, 9)
    state = (tmp_path / "checkpoint").read_bytes()
    write_checkpoints(tmp_path, 10)
    # The process is killed here: after the index, before the list.
    (tmp_path / "checkpoint").write_bytes(state)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-9")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "ckpt-10")
    name_newest(tmp_path)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-10")
    (tmp_path / "checkpoint").unlink()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "ckpt-10")
    # Those that a mended list names are forgotten in their turn.
    name_newest(tmp_path)
    checkpoint = tf.train.Checkpoint(values=tf.Variable(tf.zeros([1000])))
    tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2).save(11)
    assert names(whole_checkpoints(tmp_path)) == ["ckpt-10", "ckpt-11"]


def test_what_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    write_checkpoints(tmp_path, 1, 2, 3, 4)
    data = tmp_path / "ckpt-4.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    (tmp_path / "ckpt-3.data-00000-of-00001").unlink()
    (tmp_path / "ckpt-5.data-00000-of-00001").write_bytes(b"no index yet")
    assert names(whole_checkpoints(tmp_path)) == ["ckpt-1", "ckpt-2"]
    name_newest(tmp_path)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-2")


def test_nothing_but_damage_is_not_begun_anew(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "none") is None
    write_checkpoints(tmp_path, 1)
    (tmp_path / "ckpt-1.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="ckpt-1: 1 of its 1 data files missing"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("kept_bytes", [0, 10, 100])
def test_a_first_save_that_was_killed_is_begun_anew(
    tmp_path: Path, kept_bytes: int
) -> None:
    write_checkpoints(tmp_path, 1)
    index = tmp_path / "ckpt-1.index"
    index.write_bytes(index.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match="ckpt-1"):  # it was whole once
        newest_checkpoint(tmp_path)
    (tmp_path / "checkpoint").unlink()
    assert newest_checkpoint(tmp_path) is None
    write_checkpoints(tmp_path, 2)
    (tmp_path / "checkpoint").unlink()
    assert newest_checkpoint(tmp_path) == str(tmp_path / "ckpt-2")


def test_what_a_failed_attempt_left_is_removed(tmp_path: Path) -> None:
    write_checkpoints(tmp_path, 1, 12)
    checkpoint = tf.train.Checkpoint(values=tf.Variable(tf.zeros([100_000])))
    with (
        pytest.raises(
            OutputError, match=r"it cannot be written \(/.*make room .*; or else"
        ),
        largest_file(50_000),
        readable_write_errors(tmp_path, "it", "; or else"),
    ):
        checkpoint.write(str(tmp_path / "ckpt-2"))
    assert list(tmp_path.glob("ckpt-2[._]*"))
    remove_unfinished(tmp_path, 2)
    remove_unfinished(tmp_path, 1)  # is whole
    assert names(whole_checkpoints(tmp_path)) == ["ckpt-1", "ckpt-12"]
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {
        "ckpt-1",
        "ckpt-12",
        "checkpoint",
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_full_disk_costs_no_checkpoint(tmp_path: Path) -> None:
    config = experiment(
        write_scenes(tmp_path, 2),
        {"trainer_options.solver_options.training_number_of_steps": 4},
    )
    first = trainer.train(config, tmp_path, trainer.RunOptions(stop_after=2))
    assert Path(first.checkpoint).name == "ckpt-2"
    with (
        pytest.raises(OutputError) as caught,
        largest_file(100_000),
    ):
        trainer.train(config, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "run") in message
    assert "the checkpoint of step 4 cannot be written" in message
    assert f"training resumes from {first.checkpoint}" in message
    assert names(whole_checkpoints(tmp_path / "run")) == ["ckpt-2"]
    assert tf.train.latest_checkpoint(str(tmp_path / "run")) == first.checkpoint
    assert not list((tmp_path / "run").glob("ckpt-4*"))
    last = trainer.train(config, tmp_path)
    assert (last.first_step, last.last_step) == (2, 4)
    # The list of checkpoints is lost as well: the files are enough.
    (tmp_path / "run" / "checkpoint").unlink()
    shutil.rmtree(tmp_path / "run" / "train")
    again = trainer.train(config, tmp_path)
    assert again.first_step == 4
    assert tf.train.latest_checkpoint(str(tmp_path / "run")) == last.checkpoint
