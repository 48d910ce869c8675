"""`deeplab2-edge models` as a user meets it."""

import json
import subprocess
import sys

import pytest

from deeplab2_edge.cli import main


def test_help_needs_no_tensorflow() -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['numpy'] = None\n"
        "from deeplab2_edge.cli import main; main(['models', '--help'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "multiply-adds" in result.stdout


def test_size_that_fits_no_stride_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "--input-size", "256x512"]) == 2
    assert capsys.readouterr().err == (
        "deeplab2-edge models: --input-size is 256x512 (height x width); expected "
        "k * output_stride + 1 for each side (output_stride is 8). Nearest that fits: "
        "249x505 and 257x513\n"
    )


def test_unreadable_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["models", "--input-size", "256"])
    assert stop.value.code == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


@pytest.mark.tf
def test_published_small_has_the_published_number_of_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    arguments = ["--backbone", "mobilenet_v3_small", "--output-stride", "32"]
    assert main(["models", *arguments, "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    document = json.loads(printed.out)
    assert document["input_size"] == [257, 513]
    demo, published = document["models"]
    assert published["parameters"] == 10_508_022
    assert published["width"] == "published"
    assert demo["parameters"] < 3_000_000
    assert 0 < demo["multiply_adds"] < published["multiply_adds"]


@pytest.mark.tf
def test_table_lists_only_what_fits_the_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    arguments = ["--backbone", "mobilenet_v3_small", "--width", "demo"]
    assert main(["models", *arguments, "--input-size", "49x49", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Panoptic-DeepLab, input 49x49 (height x width)"
    strides = [line.split()[1] for line in lines[2:]]
    assert strides == ["8", "16"]  # 49 is no multiple of 32 plus one


def test_multiply_adds_of_one_convolution() -> None:
    pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")
    from deeplab2_edge.models.cost import model_cost
    from deeplab2_edge.optional import require

    tf_keras = require("tf_keras", extra="train")
    image = tf_keras.Input((9, 17, 3), batch_size=1)
    x = tf_keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)
    x = tf_keras.layers.DepthwiseConv2D(3, padding="same")(x)
    cost = model_cost(tf_keras.Model(image, x))
    assert cost.multiply_adds == 5 * 9 * (3 * 3 * 3 * 5) + 5 * 9 * (3 * 3 * 5)
    assert cost.parameters == (135 + 5) + (45 + 5)
