"""The policy that keeps a promise about accuracy."""

import json
from collections.abc import Iterator

import pytest

from deeplab2_edge.convert.options import DropLimit
from deeplab2_edge.convert.quantization.ladder import (
    Attempt,
    Rung,
    climb,
    format_climb,
    refusal,
)
from deeplab2_edge.errors import ConversionError

PROMISE = [DropLimit("pq", 1.0)]


def rung(name: str, drop: float, size: int = 1_000_000) -> Rung:
    return Rung(name, lambda: Attempt(name, size, {"pq": drop}, product=name))


def test_the_first_that_keeps_the_promise_is_chosen() -> None:
    result = climb([rung("int8", 1.5), rung("mixed", 0.8), rung("more", 0.1)], PROMISE)
    assert result.chosen is not None
    assert result.chosen.product == "mixed"
    assert [attempt.name for attempt in result.attempts] == ["int8", "mixed"]


def test_later_rungs_are_not_even_made() -> None:
    made = []

    def rungs() -> Iterator[Rung]:
        for name, drop in (("int8", 2.0), ("mixed", 0.5), ("never", 0.0)):
            made.append(name)
            yield rung(name, drop)

    climb(rungs(), PROMISE)
    assert made == ["int8", "mixed"]


def test_a_drop_of_exactly_the_promise_keeps_it() -> None:
    assert climb([rung("int8", 1.0)], PROMISE).chosen is not None


def test_every_metric_has_to_keep_its_promise() -> None:
    promises = [DropLimit("pq", 1.0), DropLimit("miou", 0.5)]
    rungs = [
        Rung("a", lambda: Attempt("a", 1, {"pq": 0.1, "miou": 0.6})),
        Rung("b", lambda: Attempt("b", 1, {"pq": 1.1, "miou": 0.1})),
        Rung("c", lambda: Attempt("c", 1, {"pq": -0.3, "miou": 0.5})),
    ]
    result = climb(rungs, promises)
    assert result.chosen is not None and result.chosen.name == "c"


def test_a_rung_that_breaks_is_noted_and_passed() -> None:
    def fail() -> Attempt:
        raise ConversionError("no such op")

    result = climb([Rung("int8", fail), rung("mixed", 0.2)], PROMISE)
    assert result.attempts[0].failure == "no such op"
    assert result.chosen is not None and result.chosen.name == "mixed"
    assert "failed: no such op" in format_climb(result)


def test_a_refusal_tells_all_that_was_tried_and_what_helps() -> None:
    result = climb([rung("int8", 3.25), rung("int8-mixed", 1.75)], PROMISE)
    assert result.chosen is None
    text = refusal(result)
    for part in ("int8", "3.25", "int8-mixed", "1.75", "--qat", "fp16", "1.75pq"):
        assert part in text
    assert "--qat" not in refusal(result, has_tried_training=True)


def test_a_refusal_after_nothing_but_failures_still_speaks() -> None:
    def fail() -> Attempt:
        raise ConversionError("broken")

    assert "broken" in refusal(climb([Rung("int8", fail)], PROMISE))


def test_progress_is_told() -> None:
    lines: list[str] = []
    climb([rung("int8", 3.0), rung("mixed", 0.0)], PROMISE, say=lines.append)
    assert lines[0].endswith("too much")
    assert lines[1].endswith("kept")


def test_the_report_is_plain_json() -> None:
    result = climb([rung("int8", 0.5)], PROMISE)
    report = json.loads(json.dumps(result.to_json()))
    assert report["chosen"] == "int8"
    assert report["attempts"][0]["drops"] == {"pq": 0.5}


def test_a_promise_of_nothing_can_be_kept() -> None:
    assert climb([rung("none", 0.0)], [DropLimit("pq", 0.0)]).chosen is not None


@pytest.mark.parametrize("drop", [-2.0, 0.0])
def test_getting_better_is_no_drop(drop: float) -> None:
    assert climb([rung("int8", drop)], PROMISE).chosen is not None
