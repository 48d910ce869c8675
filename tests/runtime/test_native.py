"""The native core: the bits of the NumPy reference, built where it runs."""

import dataclasses
import functools
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deeplab2_edge import panoptic
from deeplab2_edge.errors import MissingExtraError, OutputError, UsageError
from deeplab2_edge.panoptic import MergeSettings
from deeplab2_edge.runtime import native
from deeplab2_edge.runtime.native import build, compiler, library

MERGE = MergeSettings((2, 4), 100, 9, nms_kernel=5, stuff_area_limit=20)


pytestmark = pytest.mark.usefixtures("native_library")


def check(
    arrays: tuple[NDArray[Any], ...], canvas: tuple[int, int], merge: MergeSettings
) -> panoptic.PanopticMaps:
    expected = panoptic.merge_heads(*arrays, canvas=canvas, settings=merge)
    found = native.merge_heads(*arrays, canvas=canvas, settings=merge)
    for field in dataclasses.fields(expected):
        wanted, value = getattr(expected, field.name), getattr(found, field.name)
        assert value.dtype == wanted.dtype
        np.testing.assert_array_equal(value, wanted, field.name)
    return expected


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.tuples(st.integers(1, 9), st.integers(1, 12)),
    growth=st.sampled_from([1, 2, 3, 4, 8]),
    classes=st.integers(1, 6),
    levels=st.sampled_from([0, 1, 2, 7]),
    merge=st.builds(
        MergeSettings,
        thing_ids=st.sampled_from([(), (0,), (1, 3), (4, 2, 5), (7,)]),
        label_divisor=st.sampled_from([2, 4, 1000]),
        ignore_label=st.just(255),
        center_score_threshold=st.sampled_from([-1.0, 0.0, 0.1, 0.5, 2.0]),
        nms_kernel=st.integers(1, 9),
        keep_k_centers=st.sampled_from([1, 3, 400]),
        stuff_area_limit=st.sampled_from([0, 5, 60]),
        merge_plateaus=st.booleans(),
    ),
)
def test_maps_are_those_of_the_reference(
    seed: int,
    size: tuple[int, int],
    growth: int,
    classes: int,
    levels: int,
    merge: MergeSettings,
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*size, classes)).astype(np.float32)
    if seed % 2:  # ties between classes
        logits = np.round(logits)
    heat = rng.uniform(-0.2, 1, size)
    if levels:
        heat = np.round(heat * levels) / levels
    offsets = rng.normal(scale=(seed % 4) * 3, size=(*size, 2))
    canvas = tuple((side - 1) * growth + 1 + seed % 3 for side in size)
    arrays = logits, heat.astype(np.float32), offsets.astype(np.float32)
    check(arrays, canvas, merge)  # type: ignore[arg-type]


def test_many_centers_over_several_tiles() -> None:
    rng = np.random.default_rng(0)
    arrays = (
        rng.normal(size=(33, 65, 6)).astype(np.float32),
        rng.uniform(size=(33, 65)).astype(np.float32),
        rng.normal(scale=20, size=(33, 65, 2)).astype(np.float32),
    )
    assert len(check(arrays, (129, 257), MERGE).centers_yx) > 100


def test_votes_that_are_no_numbers_join_the_first_center() -> None:
    rng = np.random.default_rng(1)
    offsets = rng.normal(size=(5, 9, 2)).astype(np.float32)
    offsets[1, 2], offsets[3, 4, 0] = np.nan, np.inf
    logits = rng.normal(size=(5, 9, 6)).astype(np.float32)
    heat = rng.uniform(size=(5, 9)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        check((logits, heat, offsets), (17, 33), MERGE)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers_stand_for_what_their_scale_says(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    quantization = {
        "semantic_logits": (0.07, 3),
        "center_heatmap": (1 / 255, int(low)),
        "offset_map": (0.21, 5),
    }
    shapes = {"semantic_logits": (9, 13, 5), "center_heatmap": (9, 13)}
    integers = {
        name: rng.integers(low, high + 1, shapes.get(name, (9, 13, 2))).astype(dtype)
        for name in quantization
    }
    real = [
        (array.astype(np.float32) - zero) * np.float32(scale)
        for array, (scale, zero) in zip(
            integers.values(), quantization.values(), strict=True
        )
    ]
    merge = dataclasses.replace(MERGE, merge_plateaus=True)
    expected = panoptic.merge_heads(*real, canvas=(33, 49), settings=merge)
    found = native.merge_heads(
        **integers, canvas=(33, 49), settings=merge, quantization=quantization
    )
    np.testing.assert_array_equal(found.panoptic, expected.panoptic)
    np.testing.assert_array_equal(found.instance_scores, expected.instance_scores)


def test_what_does_not_fit_is_refused() -> None:
    logits, heat, offsets = (np.zeros((3, 3, n), np.float32) for n in (4, 1, 2))
    good = {"canvas": (9, 9), "settings": MERGE}
    with pytest.raises(UsageError, match="center_heatmap"):
        native.merge_heads(logits, heat, offsets, **good)
    with pytest.raises(UsageError, match="float64; expected float32"):
        native.merge_heads(logits.astype(float), heat[..., 0], offsets, **good)
    endless = {**good, "settings": dataclasses.replace(MERGE, keep_k_centers=0)}
    with pytest.raises(UsageError, match="keep_k_centers is 0"):
        native.merge_heads(logits, heat[..., 0], offsets, **endless)


def test_a_library_is_built_once_and_only_ours_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(build.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[Path] = []

    def pretend(output: Path) -> Path:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"library")
        output.chmod(0o755)
        built.append(output)
        return output

    monkeypatch.setattr(build, "build_native", pretend)
    assert native.find_library() == native.find_library() == built[0]
    assert len(built) == 1
    built[0].chmod(built[0].stat().st_mode | stat.S_IWOTH)
    native.find_library()
    assert len(built) == 2


def test_the_library_of_the_package_comes_before_one_that_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(build.LIBRARY_VARIABLE, raising=False)
    within = tmp_path / compiler.LIBRARY_NAME
    within.write_bytes(b"library")
    monkeypatch.setattr(build, "packaged_library", lambda: within)
    assert native.find_library() == within
    assert native.find_library(packaged=False) != within


def test_a_library_of_the_package_that_does_not_load_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = native.find_library()
    monkeypatch.delenv(build.LIBRARY_VARIABLE, raising=False)
    broken = tmp_path / compiler.LIBRARY_NAME
    broken.write_bytes(b"of another machine")
    for module in (build, library):
        monkeypatch.setattr(module, "packaged_library", lambda: broken)
    native.load_core.cache_clear()
    assert native.load_core()._name == str(built)
    native.load_core.cache_clear()


def test_a_missing_compiler_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(build.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(compiler.COMPILER_VARIABLE, raising=False)
    with pytest.raises(MissingExtraError, match=r"apt install g\+\+"):
        native.find_library()
    monkeypatch.setenv(build.LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(UsageError, match="no such file"):
        native.find_library()


def test_a_compiler_that_fails_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "c++"
    program.write_text("#!/bin/sh\necho 'a.cpp:1: error: no space left' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv(compiler.COMPILER_VARIABLE, str(program))
    with pytest.raises(OutputError, match="no space left"):
        build.build_native(tmp_path / "made" / "core.so")
    assert not list((tmp_path / "made").iterdir())


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("has_compiler", [True, False])
def test_a_wheel_carries_the_library_where_a_compiler_was(
    tmp_path: Path, has_compiler: bool
) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "site", "*.egg-info")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    variables = {**os.environ, **({} if has_compiler else {"PATH": str(tmp_path)})}
    run = functools.partial(subprocess.run, check=True, cwd=tmp_path, env=variables)
    pip = sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"
    run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)])
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl") != has_compiler
    run([*pip, "install", "--no-deps", "--target", str(tmp_path / "own"), str(wheel)])
    code = (
        "from deeplab2_edge.runtime import native; "
        "print(native.find_library()); assert native.is_available()"
    )
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "own")}
    done = run(
        [sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, text=True
    )
    is_within = done.stdout.strip().startswith(str(tmp_path / "own"))
    assert is_within == has_compiler
