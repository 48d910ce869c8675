"""A worker that crashes, hangs or takes all memory is one error here."""

import ctypes
import dataclasses
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge import PanopticSegmenter, keys
from deeplab2_edge.cli import main
from deeplab2_edge.errors import DataError, ModelFileError, UsageError
from deeplab2_edge.images import write_png
from deeplab2_edge.model_file import GRAPH, ModelFile, OutputSpec, read_model_file
from deeplab2_edge.runtime.engine import open_engine
from deeplab2_edge.runtime.messages import room_for_heads
from deeplab2_edge.runtime.preprocess import PlacedImage
from deeplab2_edge.runtime.sandbox import SandboxEngine, SandboxLimits
from tests.runtime.tiny_model import (
    CANVAS,
    FLOAT_MODEL,
    INT8_MODEL,
    draw_scene,
    tiny_metadata,
    tiny_outputs,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of processes are tested on Linux"
)


@pytest.fixture(scope="module")
def engine() -> Iterator[SandboxEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_TOKEN", "secret")
        opened = open_engine(INT8_MODEL, num_threads=1, sandbox=True)
    assert isinstance(opened, SandboxEngine)
    with opened:
        yield opened


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_it_gives_what_the_plain_engine_gives(engine: SandboxEngine) -> None:
    plain = open_engine(INT8_MODEL, num_threads=1)
    assert engine.metadata == plain.metadata
    assert engine.is_integer == plain.is_integer
    inputs = {keys.IMAGE: draw_scene()}
    expected = plain.run_raw(inputs)  # type: ignore[attr-defined]
    found = engine.run_raw(inputs)
    assert list(found) == list(expected)
    for name, head in expected.items():
        np.testing.assert_array_equal(found[name].values, head.values)
        assert (found[name].scale, found[name].zero_point) == (
            head.scale,
            head.zero_point,
        )
        np.testing.assert_array_equal(engine.run(inputs)[name], head.real())


def test_files_of_both_formats() -> None:
    pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")
    from tests.runtime.tiny_onnx import build_onnx, onnx_file

    model = onnx_file(build_onnx(integer=True))
    inputs = {keys.IMAGE: draw_scene()}
    plain = open_engine(model, num_threads=1)
    with SandboxEngine(model, num_threads=1) as opened:
        assert opened.is_integer and opened.metadata == plain.metadata
        found = opened.run(inputs)
    for name, values in plain.run(inputs).items():
        np.testing.assert_array_equal(found[name], values)
    with pytest.raises(ModelFileError, match="tiny: its engine was closed"):
        opened.run(inputs)


def test_images_on_their_way_are_written(engine: SandboxEngine) -> None:
    metadata = engine.metadata
    image = np.random.default_rng(1).integers(0, 256, (90, 200, 3), np.uint8)
    placed = PlacedImage(image, metadata.canvas, metadata.resize)
    expected = open_engine(INT8_MODEL, num_threads=1).run({keys.IMAGE: placed.pixels()})
    found = engine.run_raw({keys.IMAGE: placed})
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].real(), values)


def test_a_segmenter_takes_it(engine: SandboxEngine) -> None:
    expected = PanopticSegmenter(INT8_MODEL)(draw_scene())
    found = PanopticSegmenter(engine)(draw_scene())
    np.testing.assert_array_equal(found.panoptic, expected.panoptic)


def test_wrong_inputs_are_refused_here(engine: SandboxEngine) -> None:
    with pytest.raises(DataError, match="this model takes uint8"):
        engine.run({keys.IMAGE: draw_scene()[1:]})
    assert engine.run({keys.IMAGE: draw_scene()})


def test_a_crash_is_one_error_that_stays() -> None:
    opened = SandboxEngine(FLOAT_MODEL, num_threads=1)
    os.kill(opened._process.pid, signal.SIGSEGV)
    for _ in range(2):
        with pytest.raises(ModelFileError, match=r"tiny_float.*crashed \(SIGSEGV\)"):
            opened.run({keys.IMAGE: draw_scene()})


def test_a_worker_that_is_gone_does_not_end_the_command_line() -> None:
    """There, as in other filters, a broken pipe ends the process without a word."""
    code = f"""
import os, signal, time
import numpy as np
from deeplab2_edge.errors import ModelFileError
from deeplab2_edge.runtime.sandbox import SandboxEngine
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
engine = SandboxEngine({str(INT8_MODEL)!r}, num_threads=1)
os.kill(engine._process.pid, signal.SIGKILL)
engine._process.wait()
try:
    engine.run({{"image": np.zeros((65, 129, 3), np.uint8)}})
except ModelFileError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "was killed, probably for want of memory" in done.stdout


@pytest.mark.slow
def test_a_process_that_stands_still_is_ended() -> None:
    opened = SandboxEngine(
        FLOAT_MODEL, num_threads=1, limits=SandboxLimits(run_seconds=0.5)
    )
    os.kill(opened._process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(ModelFileError, match="took longer than 0.5 s while running"):
        opened.run({keys.IMAGE: draw_scene()})
    assert time.monotonic() - start < 10
    assert not is_running(opened._process.pid)


def test_a_network_that_never_ends_is_ended() -> None:
    """Loops may be in files that merge by themselves, and nobody sees their end."""
    start = time.monotonic()
    with pytest.raises(ModelFileError, match="took longer than 1 s while running it"):
        SandboxEngine(
            endless_model(), num_threads=1, limits=SandboxLimits(run_seconds=1)
        )
    assert time.monotonic() - start < 30


def endless_model() -> ModelFile:
    pytest.importorskip("ai_edge_litert.schema_py_generated")
    from tests.targets import one_op

    image = one_op.TensorSpec((1, *CANVAS, 3), "float32", name="image")
    tensors = [
        image,
        dataclasses.replace(image, name="still"),
        one_op.constant(3),
        one_op.TensorSpec((1, *CANVAS), "int32", name="classes"),
    ]
    ops = [
        one_op.OpSpec("RELU", [0], [1]),  # becomes the loop
        one_op.OpSpec(
            "ARG_MAX",
            [1, 2],
            [3],
            one_op.options("ArgMaxOptions", outputType=2),
        ),
    ]
    graph = one_op.changed(one_op.model(tensors, ops, [0], [3]), one_op.make_loop)
    outputs = {keys.SEMANTIC_PRED: OutputSpec("classes", CANVAS)}
    return ModelFile(graph, tiny_metadata(outputs=outputs, merge_place=GRAPH))


def test_loading_has_a_limit_too() -> None:
    with pytest.raises(ModelFileError, match="took longer than 0.01 s while loading"):
        SandboxEngine(FLOAT_MODEL, limits=SandboxLimits(load_seconds=0.01))


@pytest.mark.slow
def test_memory_has_a_limit() -> None:
    """The network makes an image of 100 MB before it answers."""
    model = greedy_model()
    for allowed in (16 << 20, 64 << 20):
        # XNNPACK notices; others crash, which is told with the limit.
        message = f"failed to prepare|{allowed >> 20} MiB"
        with pytest.raises(ModelFileError, match=message):
            SandboxEngine(
                model, num_threads=1, limits=SandboxLimits(memory_bytes=allowed)
            )
    with SandboxEngine(
        model, num_threads=1, limits=SandboxLimits(memory_bytes=512 << 20)
    ) as opened:
        assert opened.run({keys.IMAGE: draw_scene()})


def greedy_model() -> ModelFile:
    pytest.importorskip("ai_edge_litert.schema_py_generated")
    from tests.targets import one_op

    channels = {name: spec.shape[-1] for name, spec in tiny_outputs().items()}
    tensors = [one_op.TensorSpec((1, *CANVAS, 3), "float32", name="image")]
    ops = []
    source = 0
    for size in ((2049, 4097), (17, 33)):
        tensors.append(one_op.constant(size))
        tensors.append(one_op.TensorSpec((1, *size, 3), "float32"))
        made = one_op.options("ResizeBilinearOptions", alignCorners=True)
        result = len(tensors) - 1
        inputs = [source, result - 1]
        ops.append(one_op.OpSpec("RESIZE_BILINEAR", inputs, [result], made))
        source = result
    outputs = []
    for name, count in channels.items():
        first = len(tensors)
        tensors += [
            one_op.weights(count, 1, 1, 3, dtype="float32"),
            one_op.weights(count, dtype="float32"),
            one_op.TensorSpec((1, 17, 33, count), "float32", name=name),
        ]
        inputs = [source, first, first + 1]
        ops.append(one_op.OpSpec("CONV_2D", inputs, [first + 2], one_op.conv()))
        outputs.append(first + 2)
    return ModelFile(one_op.model(tensors, ops, [0], outputs), tiny_metadata())


def test_a_file_that_fails_its_self_test_is_refused() -> None:
    model = read_model_file(FLOAT_MODEL)
    graph = bytearray(model.graph)
    weights = np.float32(-1.35).tobytes()  # what an instance center must be above
    place = graph.index(weights)
    graph[place : place + 4] = np.float32(1.35).tobytes()
    digest = hashlib.sha256(graph).hexdigest()
    changed = dataclasses.replace(
        model,
        graph=bytes(graph),
        metadata=dataclasses.replace(model.metadata, graph_sha256=digest),
    )
    with pytest.raises(ModelFileError, match=r"fails its self test \(center_heatmap"):
        SandboxEngine(changed, num_threads=1)


def test_answers_that_cannot_be_right_are_not_taken() -> None:
    """A worker that was taken over may say anything."""
    metadata = read_model_file(INT8_MODEL).metadata
    good = metadata.outputs
    for harm in (
        {"name": "elsewhere"},
        {"shape": [1 << 20, 1 << 20]},
        {"dtype": "object"},
        {"scale": float("nan")},
        {"scale": 10**400},
        {"zero_point": "x"},
        {"zero_point": float("inf")},
        {"zero_point": 1 << 31},
        {"shape": 1},
        {"name": ["a"]},
    ):
        described: list[dict[str, Any]] = [
            {
                "name": name,
                "shape": list(spec.shape),
                "dtype": "float32",
                "scale": 0.0,
                "zero_point": 0,
            }
            for name, spec in good.items()
        ]
        assert room_for_heads(metadata, described)
        described[0] |= harm
        with pytest.raises(ValueError):
            room_for_heads(metadata, described)
    for nonsense in (None, 1, {}, [], [[]], "heads"):
        with pytest.raises(ValueError):
            room_for_heads(metadata, nonsense)


def test_the_worker_has_few_rights(engine: SandboxEngine) -> None:
    pid = engine._process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    version = ctypes.CDLL(None).syscall(444, None, 0, 1)  # of Landlock
    assert engine.is_confined == (version >= 1)
    try:
        assert b"SOME_TOKEN" not in Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        pass  # only root may look at a process without core dumps
    limits = Path(f"/proc/{pid}/limits").read_text()
    for line in limits.splitlines():
        if line.startswith("Max file size"):
            assert line.split()[3] == "0"
        if line.startswith("Max open files"):
            assert int(line.split()[3]) <= 64
        if line.startswith("Max address space"):
            assert line.split()[3] != "unlimited"


def test_nothing_is_left_behind() -> None:
    opened = SandboxEngine(FLOAT_MODEL, num_threads=1)
    pid = opened._process.pid
    assert is_running(pid)
    del opened
    gc.collect()
    assert wait_until(lambda: not is_running(pid))


def test_the_worker_ends_with_a_parent_that_is_killed() -> None:
    code = f"""
import os, signal
from deeplab2_edge.runtime.sandbox import SandboxEngine
engine = SandboxEngine({str(FLOAT_MODEL)!r}, num_threads=1)
print(engine._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    assert wait_until(lambda: not is_running(pid))


def test_a_worker_that_computes_for_ever_ends_itself() -> None:
    """Nobody else may be there to end it."""
    code = """
from deeplab2_edge.runtime.sandbox_worker import _alarm
with _alarm(30):
    pass
with _alarm(0.2):
    while True:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGALRM


@pytest.mark.parametrize("field", ["memory_bytes", "load_seconds", "run_seconds"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(UsageError, match=f"{field} is 0; it must be positive"):
        SandboxLimits(**{field: 0})


def test_the_command_line_has_a_switch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "scene.png", draw_scene())
    arguments = [str(tmp_path / "scene.png"), "--quiet", "--no-overlay"]
    for model, options in (("plain", []), ("boxed", ["--sandbox"])):
        output = ["--output", str(tmp_path / model)]
        assert main(["run", str(INT8_MODEL), *arguments, *output, *options]) == 0
    plain, boxed = (
        (tmp_path / name / "scene_panoptic.png").read_bytes()
        for name in ("plain", "boxed")
    )
    assert boxed == plain
    assert main(["run", "demo", *arguments, "--sandbox"]) == 2
    message = capsys.readouterr().err
    assert "--sandbox belongs to converted files" in message
