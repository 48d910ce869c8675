"""The benchmark's report: its schema is a promise."""

import dataclasses
import json
from pathlib import Path

import pytest

from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import write_png
from deeplab2_edge.model_file import read_model_file, write_model_file
from deeplab2_edge.runtime import benchmark
from deeplab2_edge.runtime.benchmark import Timing, draw_plot, run_benchmark
from deeplab2_edge.runtime.machine import describe_machine, peak_memory_bytes
from deeplab2_edge.runtime.timing import STAGES, StageTimer
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL, draw_scene


def test_report_has_the_documented_schema() -> None:
    report = run_benchmark(INT8_MODEL, threads=[1, 2], repeats=3, warmup=1, quiet=True)
    document = json.loads(json.dumps(report.to_dict()))
    assert document["schema_version"] == 1
    assert list(document["stages"]) == list(STAGES)
    for timing in [*document["stages"].values(), document["total"]]:
        assert 0 <= timing["p50_ms"] <= timing["p90_ms"] <= timing["p99_ms"]
    assert document["load_ms"] > 0
    assert document["peak_memory_bytes"] == pytest.approx(peak_memory_bytes(), rel=0.5)
    assert document["model"]["canvas"] == [65, 129]
    assert document["input"]["source"] == "golden image of the model"
    assert document["machine"]["delegate"] == document["engine"]["delegate"]
    assert document["engine"]["fallback_reason"] is None
    assert [run["threads"] for run in document["runs"]] == [1, 2]
    assert document["threads"] in (1, 2)


def test_plot_is_a_picture() -> None:
    report = run_benchmark(INT8_MODEL, threads=[1, 2], repeats=2, warmup=0, quiet=True)
    plot = draw_plot(report)
    assert plot.shape == (110 + 2 * 60 + 70, 960, 3)
    assert (plot != 255).any()


def test_plot_names_the_total_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_benchmark(INT8_MODEL, threads=[1], repeats=1, warmup=0, quiet=True)
    # Stages whose slow images differ: the total's median is above the sum of theirs.
    run = dataclasses.replace(
        report.runs[0],
        stages={name: Timing(1.0, 9.0, 9.0) for name in STAGES},
        total=Timing(13.25, 14.0, 15.0),
    )
    written: list[str] = []
    monkeypatch.setattr(
        benchmark, "put_text", lambda image, text, *_, **__: written.append(text)
    )
    draw_plot(dataclasses.replace(report, runs=(run,)))
    assert "13.25 ms" in written
    assert written.count("1.0") == len(STAGES)


def test_own_images_are_used(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", draw_scene()[:30])
    write_png(tmp_path / "b.png", draw_scene())
    report = run_benchmark(
        INT8_MODEL, inputs=[str(tmp_path)], repeats=2, warmup=0, quiet=True
    )
    assert report.input["count"] == 2
    assert report.input["sizes"] == [[30, 129], [65, 129]]


def test_model_without_golden_is_measured_on_a_drawn_scene(tmp_path: Path) -> None:
    model = read_model_file(FLOAT_MODEL)
    path = tmp_path / "plain.tflite"
    write_model_file(path, model.graph, dataclasses.replace(model.metadata))
    report = run_benchmark(path, repeats=1, warmup=0, quiet=True)
    assert report.input == {
        "source": "synthetic street scene",
        "count": 1,
        "sizes": [[65, 129]],
    }


def test_wrong_numbers_and_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="repeats is 0"):
        run_benchmark(INT8_MODEL, repeats=0)
    with pytest.raises(DataError, match="nowhere"):
        run_benchmark(INT8_MODEL, inputs=[str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match="no images"):
        run_benchmark(INT8_MODEL, inputs=[str(tmp_path)])


def test_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["usable_cores"] >= 1
    assert {"numpy", "opencv", "deeplab2-edge"} < set(machine["versions"])
    json.dumps(machine)


def test_timer_adds_up_stages() -> None:
    timer = StageTimer()
    for _ in range(2):
        with timer.stage("merge"):
            pass
    with pytest.raises(KeyError), timer.stage("draw"):
        raise KeyError
    assert list(timer.milliseconds) == ["merge", "draw"]
    assert all(ms > 0 for ms in timer.milliseconds.values())
