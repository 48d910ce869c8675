"""Training with evaluation, in one process or beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")

from deeplab2_edge.checkpoints import resolve_checkpoint
from deeplab2_edge.errors import CheckpointError, ConfigError
from deeplab2_edge.train.best import Best, keep_if_best, read_best
from deeplab2_edge.train.modes import evaluate_continuously, train_and_evaluate
from tests.train.small_run import experiment, write_scenes

pytestmark = pytest.mark.tf


def test_evaluates_at_intervals_and_keeps_the_best(tmp_path: Path) -> None:
    pattern = write_scenes(tmp_path, 2)
    config = experiment(
        pattern,
        {
            "evaluator_options.eval_interval": 1,
            "trainer_options.save_checkpoints_steps": 10,
        },
    )
    transformed = []

    def transform(model: Any) -> Any:
        transformed.append(model)
        return model

    summary, evaluated = train_and_evaluate(
        config, tmp_path, quiet=True, transform_model=transform
    )
    assert len(transformed) == 1
    assert [one.step for one in evaluated] == [1, 2]
    assert evaluated[0].is_best
    best = read_best(tmp_path / "run")
    assert best is not None
    assert best.value == max(one.report.pq.pq for one in evaluated)
    # The best folder is a checkpoint of its own, with its experiment.
    assert resolve_checkpoint(tmp_path / "run" / "best").endswith(f"ckpt-{best.step}")
    assert (tmp_path / "run" / "best" / "config.textproto").is_file()
    # Nothing is left to train, and one checkpoint to look at.
    (again,) = evaluate_continuously(config, tmp_path, timeout=1, quiet=True)
    assert again.step == summary.last_step == 2
    assert again.report.pq.pq == pytest.approx(evaluated[-1].report.pq.pq)
    assert not again.is_best


def test_waiting_for_a_run_that_never_comes_ends(tmp_path: Path) -> None:
    config = experiment("none")
    with pytest.raises(CheckpointError, match="no checkpoint came within 0.1 seconds"):
        list(evaluate_continuously(config, tmp_path, timeout=0.1, quiet=True))


def test_what_cannot_be_evaluated_is_not_trained(tmp_path: Path) -> None:
    config = experiment("none", {"evaluator_options.eval_scales": (0.0,)})
    with pytest.raises(ConfigError, match="eval_scales is .* numbers above 0"):
        train_and_evaluate(config, tmp_path, quiet=True)


def _checkpoint(folder: Path, step: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for ending in ("index", "data-00000-of-00001"):
        (folder / f"ckpt-{step}.{ending}").write_bytes(bytes([step]))
    (folder / "config.textproto").write_text("")
    return str(folder / f"ckpt-{step}")


def test_the_best_is_replaced_only_by_a_better_one(tmp_path: Path) -> None:
    first, second, third = (_checkpoint(tmp_path, step) for step in (1, 2, 3))
    assert keep_if_best(first, tmp_path, Best(1, "PQ", 0.5))
    assert not keep_if_best(second, tmp_path, Best(2, "PQ", 0.5))
    assert keep_if_best(third, tmp_path, Best(3, "PQ", 0.6))
    assert read_best(tmp_path) == Best(3, "PQ", 0.6)
    names = {path.name for path in (tmp_path / "best").iterdir()}
    assert names == {
        "best.json",
        "ckpt-3.index",
        "ckpt-3.data-00000-of-00001",
        "config.textproto",
    }


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "best.json").write_text(json.dumps({"step": 1}))
    with pytest.raises(CheckpointError, match="best.json: is not the record"):
        read_best(tmp_path)
