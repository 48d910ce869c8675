"""Predictions in the formats of benchmarks, read back and measured by their tools."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import read_label_png, write_png
from deeplab2_edge.metrics import (
    OfficialWriter,
    convert_folder,
    evaluate_folders,
    official_format,
)
from tests.metrics.scenes import disturbed, random_scene

CITYSCAPES = get_dataset("cityscapes_panoptic")
KITTI = get_dataset("kitti_step")
COCO = get_dataset("coco_panoptic")


def street(rng: np.random.Generator) -> NDArray[np.int64]:
    return random_scene(rng, things=(11, 13))


def test_step_holds_classes_and_instances(tmp_path: Path) -> None:
    panoptic = np.array([[0, 11300, 13001, 255000]])
    with OfficialWriter(tmp_path, KITTI) as writer:
        path = writer.add("0002/000007", panoptic)
    assert path == tmp_path / "0002" / "000007.png"
    expected = [[[0, 0, 0], [11, 1, 44], [13, 0, 1], [255, 0, 0]]]
    np.testing.assert_array_equal(read_label_png(path), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["0002"]


def test_coco_holds_category_and_image_ids(tmp_path: Path) -> None:
    panoptic = np.zeros((4, 6), np.int64)  # class 0 is void
    panoptic[1:3, 2:5] = 1 * 256 + 3  # the first class, person
    with OfficialWriter(tmp_path, COCO) as writer:
        writer.add("val2017/000000000139", panoptic, scores={259: 0.5})
    document = json.loads((tmp_path / "panoptic_predictions.json").read_text())
    (annotation,) = document["annotations"]
    assert annotation["image_id"] == 139
    assert annotation["segments_info"] == [
        {
            "id": 1,
            "category_id": 1,
            "area": 6,
            "bbox": [2, 1, 3, 2],
            "iscrowd": 0,
            "score": 0.5,
        }
    ]
    png = read_label_png(tmp_path / "panoptic_predictions" / annotation["file_name"])
    np.testing.assert_array_equal(png[..., 0], panoptic == 259)
    assert not png[..., 1:].any()


def test_step_holds_depth_beside_the_maps(tmp_path: Path) -> None:
    depth = np.array([[0.0, 1.5, 80.123, 300.0]], np.float32)
    with OfficialWriter(tmp_path, get_dataset("semkitti_dvps")) as writer:
        writer.add("08/000007", np.array([[3, 8, 0, 18]]) * 65536, depth=depth)
    stored = read_label_png(tmp_path / "08" / "000007_depth.png")
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, [[0, 384, 20511, 65535]])


def test_semantic_maps_hold_label_ids(tmp_path: Path) -> None:
    classes = np.array([[0, 13, 18, 255]])
    with OfficialWriter(tmp_path, CITYSCAPES, format="semantic") as writer:
        path = writer.add("frankfurt/frankfurt_1_2_leftImg8bit", classes * 1000)
        assert not writer.wants_instances
        with pytest.raises(DataError, match="a class is 19"):
            writer.add("b", np.full((2, 2), 19000))
    assert path == tmp_path / "frankfurt_1_2.png"
    # Label ids: road 7, car 26, bicycle 33.
    np.testing.assert_array_equal(read_label_png(path), [[7, 26, 33, 255]])
    assert not list(tmp_path.glob("*.json"))


def test_frames_of_two_videos_have_names_of_their_own(tmp_path: Path) -> None:
    road = np.zeros((2, 2), int)
    with OfficialWriter(tmp_path, KITTI, format="semantic") as writer:
        paths = [writer.add(f"{video}/000000", road) for video in ("0001", "0002")]
    assert [path.name for path in paths] == ["0001_000000.png", "0002_000000.png"]


def test_formats_follow_the_data_set() -> None:
    names = ("coco_panoptic", "ade20k_panoptic", "cityscapes_panoptic", "kitti_step")
    formats = [official_format(get_dataset(name)) for name in names]
    assert formats == ["coco", "coco", "cityscapes", "step"]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="known are coco, cityscapes, step, semantic"):
        OfficialWriter(tmp_path, KITTI, format="zip")
    writer = OfficialWriter(tmp_path, CITYSCAPES)
    writer.add("a/b_leftImg8bit", np.zeros((2, 2), int))
    with pytest.raises(DataError, match="two images have this name"):
        writer.add("c/b", np.zeros((2, 2), int))
    with pytest.raises(DataError, match="inside the output folder"):
        writer.add("../b", np.zeros((2, 2), int))
    with pytest.raises(DataError, match="has class 19"):
        writer.add("d", np.full((2, 2), 19000))


def test_an_error_leaves_no_json(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError),
        OfficialWriter(tmp_path, CITYSCAPES) as writer,
    ):
        writer.add("d", np.full((2, 2), 19000))
    assert not list(tmp_path.glob("*.json"))


def write_cityscapes_truth(
    folder: Path, scenes: dict[str, NDArray[np.int64]]
) -> dict[str, Any]:
    """Writes annotations with crowds, as the preparation of Cityscapes does."""
    annotations = []
    for name, scene in scenes.items():
        numbers, segments = np.zeros(scene.shape, np.int64), []
        for label in np.unique(scene).tolist():
            if label == 255000:
                continue
            class_id, instance = divmod(label, 1000)
            category = CITYSCAPES.category_ids[class_id]
            is_crowd = class_id in CITYSCAPES.thing_ids and instance == 0
            number = category * 1000 + instance if instance else category
            numbers[scene == label] = number
            segments.append(
                {
                    "id": number,
                    "category_id": category,
                    "iscrowd": int(is_crowd),
                    "area": int((scene == label).sum()),
                }
            )
        png = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1)
        file_name = f"{name}_gtFine_panoptic.png"
        target = folder / "cityscapes_panoptic_val" / file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, png.astype(np.uint8))
        annotations.append(
            {"image_id": name, "file_name": file_name, "segments_info": segments}
        )
    document = {
        "annotations": annotations,
        "categories": [
            {"id": category, "name": name, "isthing": int(at in CITYSCAPES.thing_ids)}
            for at, (category, name) in enumerate(
                zip(CITYSCAPES.category_ids, CITYSCAPES.class_names, strict=True)
            )
        ],
    }
    (folder / "cityscapes_panoptic_val.json").write_text(json.dumps(document))
    return document


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_the_cityscapes_tools(tmp_path: Path, seed: int) -> None:
    tool = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPanopticSemanticLabeling",
        reason="install cityscapesScripts to compare with it",
        exc_type=ImportError,
    )
    rng = np.random.default_rng(seed)
    scenes = {f"ulm_{seed:06}_{i:06}": street(rng) for i in range(5)}
    truth = write_cityscapes_truth(tmp_path / "gtFine", scenes)
    with OfficialWriter(tmp_path / "out", CITYSCAPES) as writer:
        for name, scene in scenes.items():
            found = disturbed(rng, scene, wrong_class=13)
            # A crowd of a class that is predicted there, partly.
            found[:4, :12] = 11055
            writer.add(f"ulm/{name}_leftImg8bit", found)
    found = json.loads(writer.json_path.read_text())
    by_id = {entry["image_id"]: entry for entry in found["annotations"]}
    categories = {entry["id"]: entry for entry in truth["categories"]}
    with contextlib.redirect_stdout(io.StringIO()):
        statistics = tool.pq_compute_single_core(
            0,
            [(entry, by_id[entry["image_id"]]) for entry in truth["annotations"]],
            tmp_path / "gtFine" / "cityscapes_panoptic_val",
            tmp_path / "out" / "cityscapes_panoptic_predictions",
            categories,
        )
        expected = tool.average_pq(statistics, categories)
    report = evaluate_folders(
        tmp_path / "out",
        tmp_path / "gtFine" / "cityscapes_panoptic_val.json",
        CITYSCAPES,
        metrics=["pq_official", "pq"],
        quiet=True,
    )
    ours = report.results["pq_official"]
    got = [ours.pq, ours.sq, ours.rq, ours.pq_things, ours.pq_stuff]
    everything = [expected["All"][key] for key in ("pq", "sq", "rq")]
    parts = [expected[key]["pq"] for key in ("Things", "Stuff")]
    np.testing.assert_allclose(got, everything + parts, rtol=1e-12)


def test_a_folder_is_converted_without_ground_truth(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = street(rng)
    with OfficialWriter(tmp_path / "maps", KITTI) as writer:
        writer.add("0002/000000", scene)
    with OfficialWriter(tmp_path / "coco", CITYSCAPES) as writer:
        assert convert_folder(tmp_path / "maps", writer, quiet=True) == 1
    assert json.loads(writer.json_path.read_text())["annotations"][0]["segments_info"]
