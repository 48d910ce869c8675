"""Delegates: real libraries that compute right, wrong or not at all."""

import json
import logging
import pickle
import platform
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge import keys
from deeplab2_edge.cli import main
from deeplab2_edge.errors import ModelFileError, UsageError
from deeplab2_edge.images import write_png
from deeplab2_edge.model_file import (
    Golden,
    ModelFile,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.runtime import delegated, delegates, trial
from deeplab2_edge.runtime.delegates import Delegate
from deeplab2_edge.runtime.engine import Engine, FileEngine, open_engine
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.interpreter import LiteRtEngine
from deeplab2_edge.runtime.messages import describe_heads
from deeplab2_edge.targets.compiled import adopt_compiled
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL, draw_scene
from tests.targets.test_compiled import compile_by_hand

ROOT = Path(__file__).parents[2]
SCENE = {keys.IMAGE: draw_scene()}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or platform.system() != "Linux":
        pytest.skip("runs on Linux where g++ or clang++ is installed")
    path = tmp_path_factory.mktemp("delegate") / "libtest_delegate.so"
    source = Path(__file__).with_name("test_delegate.cpp")
    headers = ROOT / "runtime/native"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run(
        [compiler, *flags, f"-I{headers}", str(source), "-o", str(path)], check=True
    )
    return str(path)


@pytest.fixture(autouse=True)
def _nothing_was_said() -> None:
    delegated._say_once.cache_clear()


def open_with(
    library: str, mode: str, source: Path | ModelFile = FLOAT_MODEL, **options: Any
) -> FileEngine:
    return open_engine(
        source, delegate=library, delegate_options={"mode": mode}, **options
    )


def assert_as_on_cpu(engine: Engine) -> None:
    expected = LiteRtEngine(FLOAT_MODEL).run(SCENE)
    for name, head in engine.run(SCENE).items():
        np.testing.assert_allclose(head, expected[name], atol=1e-5)


def test_a_delegate_that_computes_right_is_used(
    library: str, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = open_with(library, "right", num_threads=1)
    printed = capfd.readouterr()
    assert printed.out == "" and "a note" in printed.err
    assert isinstance(engine, LiteRtEngine) and engine.delegate_parts == 4
    assert engine.report.delegate == engine.report.library == library
    assert engine.report.fallback_reason is None
    differences = engine.report.differences
    assert set(differences) == set(engine.metadata.outputs)
    assert max(differences.values()) < 1e-5
    assert_as_on_cpu(engine)
    document = json.loads(json.dumps(engine.report.to_dict()))
    assert document["threads"] == 1


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("wrong", "does not compute what the CPU does"),
        ("nan", "largest difference not finite"),
        ("idle", "takes nothing of this graph"),
    ],
)
def test_the_cpu_replaces_a_delegate_that_does_not(
    library: str, mode: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "deeplab2_edge"):
        engine = open_with(library, mode)
        assert len(caplog.messages) == 1
        assert reason in caplog.messages[0]
        assert caplog.messages[0].endswith("the CPU computes instead")
    found = engine.report
    assert found.fallback_reason and reason in found.fallback_reason
    assert found.library is None and found.delegate != library
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert_as_on_cpu(engine)


def test_the_reason_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = trial.Trial(LiteRtEngine(FLOAT_MODEL).run(SCENE), delegate_parts=0)
    monkeypatch.setattr(delegated, "try_delegate", lambda *_, **__: found)
    with caplog.at_level(logging.WARNING, "deeplab2_edge"):
        for _ in range(2):
            engine = open_with("libidle.so", "idle")
            assert engine.report.fallback_reason is not None
    assert len(caplog.messages) == 1


def test_without_a_self_test_a_fixed_image_tells(library: str) -> None:
    model = read_model_file(FLOAT_MODEL)
    plain = ModelFile(model.graph, model.metadata)
    assert open_with(library, "right", plain).report.fallback_reason is None
    assert open_with(library, "wrong", plain).report.fallback_reason


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("unprepared", r"cannot take this graph in .*\(no memory on the device\)"),
        ("deviceless", r"cannot be started \(no device\)$"),
        ("crash", r"SIGSEGV \(symbol of another TFLite\); .* built for another"),
    ],
)
def test_a_delegate_that_cannot_work_is_refused(
    library: str, mode: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_with(library, mode)
    assert "\n" not in str(caught.value)


def test_the_end_of_a_process_is_named() -> None:
    assert [trial._ending(code) for code in (1, -11, -250)] == [
        "exit code 1",
        "SIGSEGV",
        "signal 250",
    ]


def test_an_answer_is_read_and_never_executed(tmp_path: Path) -> None:
    model = read_model_file(FLOAT_MODEL)
    outputs = LiteRtEngine(FLOAT_MODEL).run(SCENE)
    heads, values = describe_heads({n: RawHead(v) for n, v in outputs.items()})
    good = {"heads": heads, "delegate_parts": 2}
    found = trial._read_answer(trial._pack(good, values), model)
    assert isinstance(found, trial.Trial) and found.delegate_parts == 2
    for name, values_of in outputs.items():
        np.testing.assert_array_equal(found.outputs[name], values_of)
    error = trial._read_answer(
        trial._pack({"error": "SystemExit", "message": "a\x1b[2J\nb"}, ()), model
    )
    assert type(error) is ModelFileError
    assert str(error) == f"{FLOAT_MODEL}: a [2J b"
    mark = tmp_path / "mark"

    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    whole = trial._pack(good, values)
    for answer in (
        pickle.dumps(Harm()),
        b"",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b'{"sizes": [-1, 1]}\n',
        b'{"sizes": [1e999]}\n',
        whole[:-1],
        whole + b"x",
        trial._pack({**good, "delegate_parts": "2"}, values),
        trial._pack({**good, "heads": heads[1:]}, values[1:]),
        trial._pack(good, [*values, values[0]]),
        trial._pack(good, values[::-1]),
    ):
        with pytest.raises(ValueError):
            trial._read_answer(answer, model)
    assert not mark.exists()


def test_a_device_may_need_a_moment_after_it_was_tried(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("TEST_DELEGATE_MARK", str(mark))
    assert open_with(library, "busy").report.delegate == library
    assert mark.exists()  # refused once, and opened again


def test_where_no_process_can_be_started_it_is_said(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/nowhere/python")
    with pytest.raises(UsageError, match="no other Python can be started"):
        open_with(library, "right")


def test_a_delegate_that_never_answers_is_given_up(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 1)
    with pytest.raises(UsageError, match="gave no answer within 1 second"):
        open_with(library, "hang")


def test_verify_judges_the_delegate_itself(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["verify", str(FLOAT_MODEL), "--delegate", library, "--delegate-option"]
    assert main([*command, "mode=right"]) == 0
    assert library in capsys.readouterr().out
    assert main([*command, "mode=wrong"]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert main([*command, "mode=idle", "--json"]) == 0
    engine = json.loads(capsys.readouterr().out)["self_test"]["engine"]
    assert "takes nothing of this graph" in engine["notes"][0]
    assert main([*command, "mode"]) == 2
    assert "expected KEY=VALUE" in capsys.readouterr().err


def test_a_run_says_what_computed_and_why_not_the_delegate(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "scene.png"
    write_png(image, draw_scene())
    command = ["run", str(FLOAT_MODEL), str(image), "--delegate", library]
    command += ["--delegate-option", "mode=wrong", "--output", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    engine = json.loads(capsys.readouterr().out)["engine"]
    reason = "does not compute what the CPU does"
    assert engine["library"] is None and engine["delegate"] != library
    assert reason in engine["fallback_reason"]
    assert engine["why"][-1].endswith(engine["fallback_reason"])
    assert main(command) == 0
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("engine: ")
    ]
    assert reason in line


def without_entry_points(folder: Path, library: str) -> Path:
    path = folder / "no_delegate.so"
    content = Path(library).read_bytes()
    path.write_bytes(content.replace(b"tflite_plugin_", b"tflite_plugim_"))
    return path


def other_processor(folder: Path, library: str) -> Path:
    path = folder / "other.so"
    content = bytearray(Path(library).read_bytes())
    machine = 183 if platform.machine() != "aarch64" else 62
    struct.pack_into("<H", content, 18, machine)
    path.write_bytes(content)
    return path


def no_library(folder: Path, library: str) -> Path:
    path = folder / "text.so"
    path.write_text("not a library at all")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_entry_points, "no TFLite delegate: it has no tflite_plugin_create"),
        (other_processor, "is built for (aarch64|x86_64), and this Python for"),
        (no_library, "cannot be loaded .*(file too short|invalid ELF header)"),
        (lambda folder, _: folder / "none.so", r"cannot be loaded \(no such file\)"),
    ],
)
def test_what_is_no_delegate_is_refused_in_one_line(
    tmp_path: Path, library: str, make: Any, message: str
) -> None:
    path = str(make(tmp_path, library))
    with pytest.raises(UsageError, match=message) as caught:
        delegates.check_library(Delegate(path, path))
    assert "\n" not in str(caught.value)


def test_a_library_that_is_cut_off_is_refused(tmp_path: Path, library: str) -> None:
    path = tmp_path / "cut.so"
    path.write_bytes(Path(library).read_bytes()[:700])
    # Loading it may already end the process: SIGBUS.
    with pytest.raises(UsageError, match="; it is damaged|cannot be loaded"):
        open_engine(FLOAT_MODEL, delegate=str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edgetpu", r"delegate edgetpu \(.*edgetpu.*\) cannot be loaded .*libedgetpu1"),
        ("gpu", r"delegate gpu \(.*(finds no GPU that it can use|ai-edge-litert 2)"),
    ],
)
def test_a_named_delegate_that_is_not_installed_says_where_it_comes_from(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.setenv(variable, "/nowhere.json")
    with pytest.raises(UsageError, match=message):
        open_engine(FLOAT_MODEL, delegate=name)


@pytest.mark.parametrize("name", [None, "cpu", "none", "xnnpack"])
def test_the_cpu_goes_by_several_names(name: str | None) -> None:
    assert delegates.find_delegate(name) is None
    found = open_engine(FLOAT_MODEL, delegate=name).report
    assert found.fallback_reason is None and found.library is None
    with pytest.raises(UsageError, match="are for a delegate, but none is asked for"):
        delegates.find_delegate(name, {"device": "usb"})


def test_xnnpack_that_takes_nothing_is_said_and_refused_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What tflite-runtime 2.14 does with int8 files.
    monkeypatch.setattr("deeplab2_edge.runtime.interpreter._count_parts", lambda _: 0)
    found = open_engine(INT8_MODEL).report
    assert found.delegate == "builtin"
    assert "XNNPACK takes nothing of this graph" in found.notes[0]
    with pytest.raises(UsageError, match="XNNPACK takes nothing"):
        open_engine(INT8_MODEL, delegate="xnnpack")


def test_unknown_systems_have_no_named_delegate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delegates.platform, "system", lambda: "Plan9")
    with pytest.raises(UsageError, match="not known on Plan9"):
        delegates.find_delegate("edgetpu")


def compiled(folder: Path, *, has_golden: bool = True) -> Path:
    path = compile_by_hand(folder / "tiny_edgetpu.tflite")
    adopt_compiled(path, read_model_file(INT8_MODEL))
    if not has_golden:
        model = read_model_file(path)
        write_model_file(path, model.graph, model.metadata)
    return path


def pretend_edge_tpu(
    monkeypatch: pytest.MonkeyPatch, outputs: Mapping[str, Any]
) -> None:
    """Lets an Edge TPU compute this; there is none, nor a public one without it."""
    found = trial.Trial(outputs, delegate_parts=1)
    monkeypatch.setattr(delegated, "try_delegate", lambda *_, **__: found)


def test_nothing_falls_back_where_the_cpu_cannot_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = read_model_file(INT8_MODEL).golden
    assert golden is not None
    wrong = Golden(golden.inputs, {n: -h - 9 for n, h in golden.heads.items()})
    pretend_edge_tpu(monkeypatch, wrong.heads)
    with pytest.raises(ModelFileError, match="the CPU cannot run what is compiled"):
        open_engine(compiled(tmp_path))
    # Right outputs lead to the engine in this process, which finds no library.
    pretend_edge_tpu(monkeypatch, golden.heads)
    with pytest.raises(UsageError, match=r"edgetpu \(.*\) cannot be loaded"):
        open_engine(compiled(tmp_path, has_golden=False))


def test_coral_devices_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, vendor, product in (
        ("1-1", "18d1", "9302"),
        ("1-2", "046d", "0825"),
        ("2-1", "1a6e", "089a"),
    ):
        folder = tmp_path / "usb" / name
        folder.mkdir(parents=True)
        (folder / "idVendor").write_text(f"{vendor}\n")
        (folder / "idProduct").write_text(f"{product}\n")
    (tmp_path / "usb/3-1").mkdir()
    (tmp_path / "usb/3-1/idVendor").write_text("1a6e\n")
    (tmp_path / "apex_0").touch()
    monkeypatch.setattr(delegates, "_USB_DEVICES", tmp_path / "usb")
    monkeypatch.setattr(delegates, "_DEV", tmp_path)
    apex = str(tmp_path / "apex_0")
    assert delegates.coral_devices() == ["USB 18d1:9302", "USB 1a6e:089a", apex]
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri/renderD128").touch()
    (tmp_path / "dri/card0").touch()
    assert delegates.gpu_devices() == [str(tmp_path / "dri/renderD128")]
