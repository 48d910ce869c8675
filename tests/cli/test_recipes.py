"""`deeplab2-edge recipes` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab2_edge.cli import main
from deeplab2_edge.cli.recipes import load_recipe
from deeplab2_edge.config import load_config, parse_config
from deeplab2_edge.datasets.description import save_description
from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.experiments import recipe_names


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["recipes", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_help_and_list_need_no_tensorflow() -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from deeplab2_edge.cli import main; main(['recipes']); "
        "main(['recipes', '--help'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "coco_max_deeplab_s_os16_res641_100k" in result.stdout
    assert "--crop-size" in result.stdout


def test_list_groups_by_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "kitti_step" in lines
    row = next(line for line in lines if " kitti_motion_resnet50_os32 " in line)
    assert row.split()[1:4] == ["motion_deeplab", "resnet50", "os32"]
    assert row.endswith("STQ 57.7, PQ 42.08, mIoU 63.15, AP 37.52")
    assert sum(line.endswith("(ours)") for line in lines) == 26
    assert len(lines) == len(recipe_names()) + 8 + 2  # data sets, note


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["recipes"]}
    assert list(rows) == recipe_names()
    assert rows["coco_panoptic_resnet50_os16"] == {
        "name": "coco_panoptic_resnet50_os16",
        "title": "Panoptic-DeepLab on COCO, ResNet-50, output stride 16.",
        "meta_architecture": "panoptic_deeplab",
        "backbone": "resnet50",
        "output_stride": 16,
        "dataset": "coco_panoptic",
        "crop_size": [641, 641],
        "published_as": "coco/panoptic_deeplab/resnet50_os16",
        "accuracy": "PQ 35.1 (val, single scale, published; not measured here)",
    }
    assert rows["camvid_mobilenet_v3_small"]["published_as"] is None


def test_a_name_prints_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    name = "cityscapes_dvps_vip_wide_resnet41_os16"
    assert main(["recipes", name]) == 0
    text = capsys.readouterr().out
    assert parse_config(text) == load_recipe(name).config
    assert main(["recipes", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == text


def test_a_copy_fits_the_users_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = tmp_path / "mine.json"
    save_description(get_dataset("camvid"), description)
    name, output = "coco_panoptic_resnet50_os32", tmp_path / "my street.textproto"
    arguments = ["--output", str(output), "--dataset", str(description)]
    arguments += ["--crop-size", "257x513", "--set", "${TRAIN_SET}=a-*"]
    arguments += ["--set", "train_dataset_options.batch_size=4"]
    assert main(["recipes", name, *arguments]) == 0
    told = capsys.readouterr().out
    assert f"copied {name} to {output}" in told
    assert "left to fill in, there or with --set: ${INIT_CHECKPOINT}, ${VAL_SET}" in (
        told
    )
    initial = "checkpoints/resnet50_imagenet1k_strong_training_strategy"
    command = [
        f"deeplab2-edge train '{output}' --output runs",
        f"--set '${{INIT_CHECKPOINT}}={initial}'",
        "--set '${VAL_SET}=records/mine/val-*.tfrecord'",
    ]
    assert "train it:\n  " + " \\\n    ".join(command) in told
    config = load_config(output)
    assert config.experiment_name == "my street"
    model, train = config.model_options, config.train_dataset_options
    assert model.panoptic_deeplab is not None
    assert model.panoptic_deeplab.semantic_head is not None
    assert model.panoptic_deeplab.semantic_head.output_channels == 11
    assert not model.restore_semantic_last_layer_from_initial_checkpoint
    assert train.file_pattern == ("a-*",)
    assert train.batch_size == 4
    for options in (train, config.eval_dataset_options):
        assert options.dataset == str(description)
        assert options.crop_size == (257, 513)
        assert options.min_resize_value == options.max_resize_value == (257, 513)
    header = output.read_text().partition("\n\n")[0]
    assert f"# Copied from the recipe {name}, " in header
    assert "#\n#   " + " \\\n#     ".join(command) + "\n#\n" in header
    assert "EXPERIMENT_NAME" not in header and "TRAIN_SET" not in header
    assert "Images are scaled to fit the crop" in output.read_text()


def test_a_copy_remembers_what_it_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, output = tmp_path / "my own.py", tmp_path / "mine.textproto"
    own.write_text("pass\n", encoding="utf-8")
    name = "synthetic_street_mobilenet_v3_small"
    arguments = ["--import", str(own), "--output", str(output)]
    assert main(["recipes", name, *arguments]) == 0
    told = capsys.readouterr().out
    command = (
        f"deeplab2-edge train {output} --import '{own}' --output runs \\\n"
        "{0}  --set '${{TRAIN_SET}}=data/synthetic/train-*.tfrecord' \\\n"
        "{0}  --set '${{VAL_SET}}=data/synthetic/val-*.tfrecord'\n"
    )
    assert told.endswith("train it:\n  " + command.format("  "))
    text = output.read_text(encoding="utf-8")
    assert "#   " + command.format("#   ") + "#\n" in text
    assert text.count("deeplab2-edge data synth") == 2


def test_a_network_without_training_is_not_said_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.textproto"
    name = "example_cityscapes_deeplabv3"
    assert main(["recipes", name, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"copied {name} to {output}\n"
    assert "deeplab2-edge train" not in output.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_copied(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(name)
    dataset = recipe.config.train_dataset_options.dataset
    output = tmp_path / "copy.textproto"
    arguments = ["--output", str(output), "--dataset", dataset, "--crop-size"]
    assert main(["recipes", name, *arguments, "65x129", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(output),
        "copied": name,
    }
    config = load_config(output)
    assert config.train_dataset_options.crop_size == (65, 129)
    assert config.model_options == recipe.config.model_options


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, output = "coco_panoptic_resnet50_os32", tmp_path / "a.textproto"
    assert "no such recipe; did you mean coco_panoptic_resnet50_" in refused(
        capsys, "coco_panoptic_resnet5_os32"
    )
    assert "--crop-size changes a copy" in refused(capsys, name, "--crop-size", "9x9")
    assert "--output copies one recipe; name it" in refused(capsys, "--output", output)
    assert "Nearest that fits: 225x481 and 257x513\n" in refused(
        capsys, name, "--output", output, "--crop-size", "256x512"
    )
    assert "needs video, but camvid has single images" in refused(
        capsys,
        "kitti_motion_resnet50_os32",
        "--output",
        output,
        "--dataset",
        "camvid",
    )
    assert "no 'x'" in refused(capsys, name, "--output", output, "--set", "x=1")
    assert not output.exists()
    output.write_text("mine")
    assert "is there already" in refused(capsys, name, "--output", output)
    assert output.read_text() == "mine"
    missing = tmp_path / "missing" / "a.textproto"
    assert "cannot be written" in refused(capsys, name, "--output", missing)
