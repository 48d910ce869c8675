"""`deeplab2-edge models` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deeplab2_edge.cli import main


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["models", *arguments, "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    models: list[dict[str, Any]] = json.loads(printed.out)["models"]
    return models


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["models", *arguments]) == 2
    return capsys.readouterr().err.removeprefix("deeplab2-edge models: ")


def test_help_and_the_published_list_need_no_tensorflow() -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['tf_keras'] = None\n"
        "from deeplab2_edge.cli import main; main(['models', '--json'])\n"
        "main(['models', '--help'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "multiply-adds" in result.stdout


def test_every_architecture_is_listed_with_its_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = {row["name"]: row for row in listed(capsys)}
    assert {row["architecture"] for row in rows.values()} == {
        *("deeplab_v3", "deeplab_v3_plus", "panoptic_deeplab", "axial_deeplab"),
        *("max_deeplab", "motion_deeplab", "vip_deeplab"),
    }
    large = rows["coco_max_deeplab_l_os16_res1025_100k"]
    assert large["recipes"][1] == "coco_max_deeplab_l_os16_res1025_200k"
    assert large["input_size"] == [1025, 1025]
    assert large["parameters"] == 451_622_800
    # Published: 3692 billion.
    assert large["multiply_adds"] == pytest.approx(3692e9, rel=0.01)
    for row in rows.values():
        assert row["peak_memory_bytes"] > 4 * row["parameters"]
        assert row["relative_time"] > 0
        assert row["is_relative_time_measured"] == (row["measured"] is not None)
    baseline = rows["cityscapes_panoptic_resnet50_os32"]
    assert baseline["relative_time"] == pytest.approx(1, abs=0.1)


def test_filters_select(capsys: pytest.CaptureFixture[str]) -> None:
    wide = listed(capsys, "--backbone", "Wide_ResNet41")
    assert {row["architecture"] for row in wide} == {"panoptic_deeplab", "vip_deeplab"}
    assert len(listed(capsys, "--backbone", "resnet50", "--output-stride", "16")) == 2
    axial = listed(capsys, "--architecture", "axial_deeplab")
    assert {row["meta_architecture"] for row in axial} == {"panoptic_deeplab"}
    name = "coco_max_deeplab_s_os16_res641_400k"
    assert name in listed(capsys, name)[0]["recipes"]


def test_the_table_marks_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--architecture", "max_deeplab"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["canvas", "parameters", "MACs", "memory", "time"]
    assert lines[1] == "max_deeplab"
    assert lines[2].split()[:3] == [
        *("coco_max_deeplab_l_os16_res1025_100k", "+2", "1025x1025")
    ]
    assert "~ is computed" in "\n".join(lines)


def test_mistakes_name_what_would_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean panoptic_deeplab" in refused(
        capsys, "--architecture", "panoptic_deeplb"
    )
    assert "; kMaX-DeepLab is outside this version's scope" in refused(
        capsys, "--architecture", "kmax_deeplab"
    )
    assert "no network has --output-stride 4; " in refused(
        capsys, "--output-stride", "4"
    )
    assert "did you mean resnet50" in refused(capsys, "--backbone", "resnet5")
    assert refused(capsys, "--backbone", "axial_resnet_l").startswith(
        "no network has --backbone axial_resnet_l; "
    )
    assert "add --edge" in refused(capsys, "--width", "demo")
    assert "leave out the names" in refused(capsys, "--edge", "one")
    assert "did you mean coco_panoptic_resnet50_os32" in refused(
        capsys, "coco_panoptic_resnet50_os3"
    )


def test_size_that_fits_no_stride_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for more, stride, near in (
        (["--edge"], 8, "249x505 and 257x513"),
        (["--output-stride", "32"], 32, "225x481 and 257x513"),
    ):
        assert refused(capsys, "--input-size", "256x512", *more) == (
            "--input-size is 256x512 (height x width); expected k * output_stride + 1 "
            f"for each side (output_stride is {stride}). Nearest that fits: {near}\n"
        )


def test_unreadable_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["models", "--input-size", "256"])
    assert stop.value.code == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


@pytest.mark.tf
def test_edge_networks_have_two_widths(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    arguments = ["--backbone", "mobilenet_v3_small", "--output-stride", "32"]
    demo, published = listed(capsys, "--edge", *arguments)
    assert published["input_size"] == [257, 513]
    assert published["parameters"] == 10_508_022
    assert published["width"] == "published"
    assert demo["parameters"] < 3_000_000
    assert 0 < demo["multiply_adds"] < published["multiply_adds"]
    assert demo["relative_time"] < published["relative_time"] < 1
    assert not published["is_relative_time_measured"]


@pytest.mark.tf
def test_table_lists_only_what_fits_the_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    arguments = ["--edge", "--backbone", "mobilenet_v3_small", "--width", "demo"]
    assert main(["models", *arguments, "--input-size", "49x49", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == [
        "mobilenet_v3_small_os8_demo",
        "mobilenet_v3_small_os16_demo",  # 49 is no multiple of 32 plus one
    ]
    assert lines[4] == ""


@pytest.mark.tf
def test_a_file_is_counted_at_its_canvas(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    from deeplab2_edge.experiments import find_recipe

    own = tmp_path / "own.textproto"
    own.write_text(find_recipe("synthetic_street_mobilenet_v3_small").read_text())
    shipped, counted = listed(capsys, "synthetic_street_mobilenet_v3_small", str(own))
    for field in ("input_size", "parameters", "multiply_adds", "activation_bytes"):
        assert counted[field] == shipped[field]
    assert counted["recipes"] == [str(own)] and counted["measured"] is None
