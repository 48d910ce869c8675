"""`deeplab2-edge data`: what it prints, writes and returns."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge.cli import data
from deeplab2_edge.errors import ConfigError, DataError, OutputError, UsageError
from deeplab2_edge.images import write_jpeg, write_png
from tests.train import layout_trees


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", *map(str, words)])
    return int(args.run(args))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "street"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for name in ("a", "b", "c"):
        write_jpeg(root / f"images/{name}.jpg", np.zeros((9, 12, 3), np.uint8))
        write_png(root / f"labels/{name}.png", np.full((9, 12), 3, np.uint8))
    return root


@pytest.fixture
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="install deeplab2-edge[train]")


def test_check_of_a_clean_folder_returns_0(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", folder, "--dataset", "camvid", "--quiet") == 0
    out = capsys.readouterr().out
    assert "3 images, 3 labels, 9x12" in out
    assert "no problems found" in out


def test_check_with_problems_returns_1_and_names_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(folder / "labels/b.png", np.full((9, 12), 99, np.uint8))
    assert run("check", folder, "--dataset", "camvid", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    (problem,) = document["problems"]
    assert problem["file"] == str(folder / "labels/b.png")
    assert "108 pixels hold class 99" in problem["message"]
    assert not document["clean"]


def test_check_of_nothing_or_an_unknown_data_set_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        run("check", folder / "none")
    with pytest.raises(ConfigError, match="camvid"):
        run("check", folder, "--dataset", "camvit")


@pytest.mark.tf
def test_build_then_check_the_records(
    folder: Path, tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "records"
    words = ["build", "--input", folder, "--dataset", "camvid", "--output", output]
    words += ["--split", "val", "--shards", 2, "--workers", 1, "--quiet"]
    assert run(*words) == 0
    assert capsys.readouterr().out.startswith("3 val records in 2 shards, ")
    assert run(*words) == 0
    assert "2 shards (2 kept)" in capsys.readouterr().out
    assert run("check", output, "--quiet") == 0
    assert "3 images, 3 labels" in capsys.readouterr().out
    assert run("check", output / "val-00000-of-00002.tfrecord", "--quiet") == 0
    assert "2 images, 2 labels" in capsys.readouterr().out


def test_build_without_any_label_is_an_error(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "records"
    with pytest.raises(DataError, match="no label at all.*--allow-unlabeled"):
        run("build", "--input", folder / "images", "--output", output, "--quiet")
    assert not output.exists()


@pytest.mark.tf
def test_build_without_labels_writes_images_if_asked(
    folder: Path, tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--input", folder / "images", "--output", tmp_path / "records"]
    words += ["--allow-unlabeled", "--shards", 1, "--workers", 1, "--quiet"]
    assert run(*words) == 0
    assert capsys.readouterr().out.startswith("3 train records in 1 shard, ")


@pytest.mark.tf
def test_build_of_a_published_layout_reports_counts_and_checksums(
    tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout_trees.cityscapes(tmp_path / "in", "val")
    words = ["build", "--dataset", "cityscapes_panoptic", "--root", tmp_path / "in"]
    words += ["--split", "val", "--output", tmp_path / "out", "--workers", 1, "--quiet"]
    with pytest.raises(DataError, match="val gives 2 records, the published split 500"):
        run(*words)
    assert not (tmp_path / "out").exists()
    assert run(*words, "--partial", "--json") == 0
    output = capsys.readouterr()
    assert output.err == "note: val gives 2 records, the published split 500\n"
    report = json.loads(output.out)["records"]
    assert (report["num_records"], report["num_expected"]) == (2, 500)
    assert (report["num_shards"], report["num_kept"]) == (10, 0)
    assert len(report["checksum"]) == 64
    shards = json.loads(Path(report["manifest"]).read_text())["shards"]
    assert len(shards) == 10
    assert run(*words, "--partial") == 0
    out = capsys.readouterr().out
    assert out.startswith("2 val records in 10 shards (10 kept), ")
    assert f"sha256 {report['checksum'][:16]}" in out
    assert run("check", tmp_path / "out", "--quiet") == 0


@pytest.mark.tf
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--root", "x"), "--root needs --dataset"),
        (("--root", "x", "--dataset", "camvid"), "no layout of its own"),
        (
            ("--root", "x", "--dataset", "kitti_step", "--split", "dev"),
            "has train, val",
        ),
        (("--input", "x", "--two-frames"), "--two-frames goes with --root"),
        (("--input", "x", "--keep-crowd"), "--keep-crowd goes with --root"),
    ],
)
def test_build_refuses_what_makes_no_sense(
    words: tuple[str, ...], message: str, tf: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run("build", *words, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_build_needs_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--input", "a", "--root", "b")):
        with pytest.raises(SystemExit):
            run("build", *words, "--output", "x")
        assert "--root" in capsys.readouterr().err


def test_step_maps_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("s", np.uint8(13)), ("i", np.uint16(1000))):
        (tmp_path / name / "0000").mkdir(parents=True)
        write_png(tmp_path / name / "0000/000000.png", np.full((4, 6), value))
    words = ["step-maps", "--dataset", "kitti_step", "--semantic", tmp_path / "s"]
    words += ["--instances", tmp_path / "i", "--output", tmp_path / "out", "--quiet"]
    assert run(*words) == 0
    assert capsys.readouterr().out == f"1 panoptic map: {tmp_path / 'out'}\n"
    assert run(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_maps"] == 1
    assert (tmp_path / "out/0000/000000.png").is_file()


@pytest.mark.tf
def test_synth_writes_records_and_a_folder(
    tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["synth", "--output", tmp_path, "--num", 2, "--size", "33x65"]
    words += ["--split", "val", "--shards", 1, "--workers", 1, "--format", "both"]
    assert run(*words, "--json", "--quiet") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["records"]["num_records"] == 2
    assert report["folder"] == {"path": str(tmp_path / "val"), "num_images": 2}
    images = sorted(path.name for path in (tmp_path / "val/images").iterdir())
    assert images == ["1000000.jpg", "1000001.jpg"]
    assert run("check", tmp_path / "val", "--quiet") == 0
    assert run("check", tmp_path, "--quiet") == 0


@pytest.mark.tf
def test_synth_writes_pairs_of_video_frames(
    tf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["synth", "--output", tmp_path, "--num", 1, "--size", "33x65"]
    words += ["--shards", 1, "--workers", 1, "--video-frames", 3, "--seed", 5]
    assert run(*words, "--quiet") == 0
    assert capsys.readouterr().out.startswith("2 train records in 1 shard,")


@pytest.mark.tf
@pytest.mark.parametrize(
    ("option", "count"), [("--two-frames", 6), ("--next-frame", 4)]
)
def test_synth_writes_the_neighbor_a_system_reads(
    option: str,
    count: int,
    tf: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["synth", "--output", tmp_path, "--num", 2, "--size", "33x65", "--quiet"]
    words += ["--shards", 2, "--workers", 1, "--video-frames", 3, option, "--json"]
    assert run(*words) == 0
    written = json.loads(capsys.readouterr().out)["records"]
    assert (written["num_records"], written["num_kept"]) == (count, 0)
    (tmp_path / "train-00001-of-00002.tfrecord").unlink()  # as if interrupted
    words[words.index("--workers") + 1] = 2
    assert run(*words) == 0
    again = json.loads(capsys.readouterr().out)["records"]
    assert (again["num_records"], again["num_kept"]) == (count, 1)  # one file is whole
    assert again["checksum"] == written["checksum"]
    assert run("check", tmp_path, "--quiet") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--num", 0), "--num 0"),
        (("--num", 2, "--seed", 999_999), "--seed 999999"),
        (("--num", 1, "--split", "test"), "train or val"),
        (("--num", 1, "--video-frames", 1), "--video-frames 1"),
        (("--num", 1, "--two-frames"), "need --video-frames"),
        (
            ("--num", 1, "--video-frames", 2, "--next-frame", "--format", "folder"),
            "no --format folder",
        ),
        (("--num", 1, "--shards", 0), "--shards 0"),
        (("--num", 1, "--workers", 0), "--workers 0"),
    ],
)
def test_synth_refuses_what_makes_no_sense(
    words: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run("synth", "--output", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["257", "0x513", "-1x5", "axb", "99999x513"])
def test_sizes_are_height_and_width(
    size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("synth", "--output", "x", "--num", 1, f"--size={size}")
    assert "--size" in capsys.readouterr().err


@pytest.mark.tf
def test_output_that_is_a_file_is_told(folder: Path, tf: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        run("build", "--input", folder, "--dataset", "camvid",
            "--output", tmp_path / "file", "--quiet")  # fmt: skip


@pytest.mark.parametrize(
    "action", [(), ("synth",), ("build",), ("step-maps",), ("check",)]
)
def test_help_shows_examples(
    action: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*action, "--help")
    assert caught.value.code == 0
    assert "examples:\n  deeplab2-edge data" in capsys.readouterr().out


def test_the_command_loads_nothing_heavy() -> None:
    program = (
        "import sys, deeplab2_edge.cli.data; "
        "sys.exit(bool({'numpy', 'cv2', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
