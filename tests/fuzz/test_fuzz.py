"""Damaged files are refused or give the answer of the file they were made of.

A sample; `make fuzz` runs ten thousand of each kind.
"""

from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert.schema_py_generated")
pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")

from tests.fuzz import harness
from tests.fuzz.corpus import write_corpus, write_images


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("kind", harness.KINDS)
def test_nothing_gets_past(sources: list[Path], kind: str) -> None:
    cases = harness.make_cases(sources, kind, range(70), seed=1)
    outcomes = list(harness.run_cases(cases, "ours"))
    assert len(outcomes) == 70
    assert [o for o in outcomes if harness.is_failure(o)] == []
    assert sum(o.name == "refused" for o in outcomes) > 35


def test_a_bare_runtime_takes_what_we_refuse(sources: list[Path]) -> None:
    """Shows that the damage is real and that the harness sees it."""
    cases = harness.make_cases(sources[:3], harness.DAMAGED, range(60), seed=1)
    outcomes = list(harness.run_cases(cases, "bare"))
    assert any(harness.is_failure(o) for o in outcomes)


def test_images_are_read_or_refused(tmp_path: Path) -> None:
    cases = harness.make_cases(
        write_images(tmp_path), harness.IMAGE, range(200), seed=1
    )
    outcomes = list(harness.run_cases(cases, "image"))
    assert [o for o in outcomes if harness.is_failure(o)] == []
    assert {o.name for o in outcomes} == {"refused", "same", "different"}


def test_equal_numbers_give_equal_files(sources: list[Path]) -> None:
    first, again, other = (
        [c.content for c in harness.make_cases(sources, kind, range(20), seed=seed)]
        for kind, seed in (
            (harness.RESEALED, 1),
            (harness.RESEALED, 1),
            (harness.RESEALED, 2),
        )
    )
    assert first == again != other
