"""Evaluation of folders of panoptic maps."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.datasets.registry import get_dataset, save_description
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import write_png
from deeplab2_edge.metrics import (
    METRICS,
    DepthError,
    DepthTrackingQuality,
    DepthVideoPanopticQuality,
    Frame,
    MetricSet,
    OfficialWriter,
    PanopticQuality,
    TrackingQuality,
    evaluate_folders,
)
from tests.metrics.scenes import disturbed, random_scene

KITTI = get_dataset("kitti_step")
CAMVID = get_dataset("camvid")
SPACE: dict[str, Any] = {
    "num_classes": 19,
    "ignore_label": 255,
    "label_divisor": 1000,
    "thing_ids": (11, 13),
}
Videos = dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]


def write_map(path: Path, panoptic: NDArray[np.int64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = panoptic // 1000, panoptic % 1000 // 256, panoptic % 1000 % 256
    write_png(path, np.stack(channels, -1).astype(np.uint8))


def write_depth(path: Path, meters: NDArray[np.float32]) -> None:
    write_png(path, np.round(meters * 256).astype(np.uint16))


@pytest.fixture
def videos(tmp_path: Path) -> Videos:
    """Writes two videos of three frames with depth into `true` and `found`."""
    rng = np.random.default_rng(1)
    written: Videos = {}
    for sequence in ("0002", "0006"):
        for number in (8, 9, 10):
            scene = random_scene(rng, things=(11, 13))
            found = disturbed(rng, scene, wrong_class=13)
            name = f"{sequence}/{number}"  # without zeros: 10 comes after 9
            written[name] = scene, found
            depth = rng.integers(256, 9000, scene.shape) / np.float32(256)
            noise = rng.uniform(0.9, 1.2, scene.shape)
            for folder, panoptic, meters in (
                ("true", scene, depth),
                ("found", found, depth * noise),
            ):
                path = tmp_path / folder / f"{name}.png"
                write_map(path, panoptic)
                write_depth(path.with_name(f"{number}_depth.png"), meters)
    return written


def test_figures_equal_those_of_the_arrays(tmp_path: Path, videos: Videos) -> None:
    report = evaluate_folders(
        tmp_path / "found",
        tmp_path / "true",
        KITTI,
        metrics=["stq", "pq", "miou", "vpq", "depth", "dstq", "dvpq"],
        windows=(1, 2),
        quiet=True,
    )
    pq, stq = PanopticQuality(**SPACE), TrackingQuality(**SPACE)
    for name, (scene, found) in videos.items():
        pq.update(scene, found)
        stq.update(scene, found, sequence=name.split("/")[0])
    assert report.num_images == 6
    assert report.results["pq"] == pq.result()
    assert report.results["stq"] == stq.result()
    assert report.results["vpq"].per_window[1] == pq.result()
    assert report.results["dstq"].tracking == stq.result()
    assert report.results["dvpq"].dvpq <= report.results["vpq"].vpq
    assert 0 < report.results["depth"].abs_rel < 0.2
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    per_class = document["panoptic_quality"]["per_class"]
    assert set(per_class) == {"road", "wall", "person", "car"}
    assert document["tracking_quality"]["per_sequence"]["0002"]["num_frames"] == 3
    text = report.format()
    for word in ("PQ", "mIoU", "STQ", "VPQ", "DVPQ", "DSTQ", "absRel", "window 2"):
        assert word in text


def test_one_folder_of_frames_is_one_video(tmp_path: Path) -> None:
    scene = random_scene(np.random.default_rng(0), things=(11, 13))
    for names in (["000000", "000001"], ["7_000000_x", "8_000000_x"]):
        root = tmp_path / names[0]
        for name in names:
            write_map(root / f"{name}.png", scene)
        report = evaluate_folders(root, root, KITTI, metrics=["stq"], quiet=True)
        sequences = list(report.results["stq"].per_sequence)
        assert sequences == ([root.name] if names[0] == "000000" else ["7", "8"])
        assert report.results["stq"].stq == 1.0


def test_photos_beside_labels_are_no_maps(tmp_path: Path) -> None:
    scene = random_scene(np.random.default_rng(0), things=(11, 13))
    write_map(tmp_path / "true" / "1_000001_gtFine_instanceTrainIds.png", scene)
    write_map(tmp_path / "true" / "1_000001_leftImg8bit.png", scene + 1000)
    write_map(tmp_path / "found" / "1_000001_leftImg8bit.png", scene)
    report = evaluate_folders(tmp_path / "found", tmp_path / "true", KITTI, quiet=True)
    assert report.results["pq"].pq == 1.0


@pytest.mark.parametrize("dataset", ["cityscapes_dvps", "semkitti_dvps"])
def test_official_trees_of_video_and_depth_are_read(
    tmp_path: Path, dataset: str
) -> None:
    info = get_dataset(dataset)
    car = 13 if dataset == "cityscapes_dvps" else 0
    divisor, void = info.label_divisor, info.ignored_panoptic_id
    rng = np.random.default_rng(0)
    space: dict[str, Any] = {
        "num_classes": info.num_classes,
        "ignore_label": info.ignore_label,
        "label_divisor": divisor,
        "thing_ids": info.thing_ids,
    }
    depth, stq = DepthError(), TrackingQuality(**space)
    dvpq = DepthVideoPanopticQuality(**space)
    dstq = DepthTrackingQuality(**space)
    with OfficialWriter(tmp_path / "found", info) as writer:
        for frame in range(5):
            true = np.full((12, 20), 8 * divisor, np.int64)
            true[2:8, frame : frame + 6] = car * divisor + 3
            true[-2:] = void
            meters = rng.integers(256, 9000, true.shape) / np.float32(256)
            found, guess = np.roll(true, 1, axis=1), meters * np.float32(1.125)
            stem = tmp_path / "val" / f"000007_{frame:06}_munster_000168_000019"
            stem.parent.mkdir(exist_ok=True)
            if dataset == "cityscapes_dvps":
                label = true.astype(np.uint16)
            else:
                number = true % divisor
                channels = true // divisor, number // 256, number % 256
                label = np.stack(channels, axis=-1).astype(np.uint8)
            write_png(Path(f"{stem}_gtFine_instanceTrainIds.png"), label)
            write_depth(Path(f"{stem}_depth.png"), meters)
            photo = np.zeros((12, 20, 3), np.uint8)
            write_png(Path(f"{stem}_leftImg8bit.png"), photo)
            writer.add(f"000007/{frame:06}", found, depth=guess)
            stored = np.rint(guess * 256) / np.float32(256)
            depths = meters, stored.astype(np.float32)
            depth.update(*depths)
            stq.update(true, found, sequence="000007")
            dvpq.update(true, found, *depths, sequence="000007")
            dstq.update(true, found, *depths, sequence="000007")
    names = ["stq", "depth", "dvpq", "dstq"]
    folders = tmp_path / "found", tmp_path / "val"
    report = evaluate_folders(*folders, info, metrics=names, quiet=True)
    for name, metric in zip(names, (stq, depth, dvpq, dstq), strict=True):
        assert report.results[name] == metric.result(), name
    assert 0 < report.results["dvpq"].dvpq < 1
    assert report.results["depth"].abs_rel == pytest.approx(0.125, abs=1e-3)


def test_coco_annotations_keep_crowds_for_the_official_figures(tmp_path: Path) -> None:
    scene = np.full((20, 20), 3000, np.int64)
    scene[:6, :10], scene[:6, 10:] = 8000, 8001  # a crowd of cars, and a car
    for folder in ("true", "found"):
        with OfficialWriter(tmp_path / folder, CAMVID, format="coco") as writer:
            writer.add(
                "a", np.where(scene == 8000, 8002, scene), scores={8001: 0.9, 8002: 0.5}
            )
    path = tmp_path / "true" / "panoptic_predictions.json"
    document = json.loads(path.read_text())
    segments = document["annotations"][0]["segments_info"]
    (crowd,) = [s for s in segments if s["bbox"] == [0, 0, 10, 6]]
    crowd["iscrowd"] = 1
    path.write_text(json.dumps(document))
    report = evaluate_folders(
        tmp_path / "found",
        path,
        CAMVID,
        metrics=["pq", "pq_official", "ap", "miou"],
        quiet=True,
    )
    for name in ("pq", "pq_official"):
        assert report.results[name].per_class[8].tp == 1
        assert report.results[name].pq == 1.0
    assert report.results["ap"].per_class[8].num_instances == 1
    assert report.results["ap"].ap == pytest.approx(1.0)
    assert report.results["miou"].miou == 1.0


def test_results_of_run_are_read(tmp_path: Path) -> None:
    scene = np.full((6, 8), 3000, np.int64)
    scene[:3] = 8001
    write_map(tmp_path / "true" / "a.png", scene)
    save_description(CAMVID, tmp_path / "true" / "dataset.json")
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[..., 0] = np.where(scene == 3000, 1, 2)
    (tmp_path / "results").mkdir()
    write_png(tmp_path / "results" / "a_panoptic.png", pixels)
    write_png(tmp_path / "results" / "a_overlay.png", pixels)
    for word in ("semantic", "instances", "depth_color", "points", "panel"):
        write_png(tmp_path / "results" / f"a_{word}.png", pixels)
    segments = [
        {"id": 3000, "class_id": 3, "class_name": "road", "score": None},
        {"id": 8001, "class_id": 8, "class_name": "car", "score": 0.75},
    ]
    document = {"label_divisor": 1000, "segments": segments}
    path = tmp_path / "results" / "a.json"
    path.write_text(json.dumps(document))
    folders = tmp_path / "results", tmp_path / "true"
    report = evaluate_folders(*folders, metrics=["pq", "ap"], quiet=True)
    assert report.results["pq"].pq == 1.0
    assert report.results["ap"].ap == pytest.approx(1.0)
    with pytest.raises(DataError, match="numbers the instances of each image anew"):
        evaluate_folders(*folders, metrics=["stq"], quiet=True)
    segments[1]["class_name"] = "bus"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"a\.json: class 8 is 'bus'"):
        evaluate_folders(*folders, quiet=True)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"a\.json: must hold a JSON object"):
        evaluate_folders(*folders, quiet=True)


def test_predicted_void_misses_its_pixels(tmp_path: Path) -> None:
    scene = np.zeros((4, 4), np.int64)
    write_map(tmp_path / "true" / "a.png", scene)
    found = scene.copy()
    found[:1] = 255000
    write_map(tmp_path / "found" / "a.png", found)
    report = evaluate_folders(tmp_path / "found", tmp_path / "true", KITTI, quiet=True)
    assert report.results["miou"].per_class == {0: 0.75}
    assert report.results["pq"].pq == 0.75


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    scene = np.zeros((4, 4), np.int64)
    true, found = tmp_path / "true", tmp_path / "found"
    write_map(true / "a.png", scene)

    def evaluate(match: str, kind: type[Exception] = DataError, **options: Any) -> None:
        with pytest.raises(kind, match=match):
            evaluate_folders(found, true, KITTI, quiet=True, **options)

    evaluate("found: expected a folder of panoptic maps, found nothing")
    found.mkdir()
    evaluate("holds no panoptic maps")
    write_map(found / "b.png", scene)
    evaluate(r"found: 1 prediction of 1 missing, the first for 'a' .*like 'b'")
    write_map(found / "a.png", scene[:2])
    evaluate(r"a\.png: panoptic prediction has shape \(2, 4\); expected \(4, 4\)")
    write_map(found / "a.png", np.full((4, 4), 44000))
    evaluate(r"a\.png: 16 pixels hold class 44")
    write_map(found / "a.png", np.full((4, 4), 11001))
    evaluate("segment 11001 .* has the score None", metrics=["ap"])
    evaluate(r"a\.png: has no depth; expected a_depth\.png", metrics=["depth"])
    evaluate("'pk' is unknown.*pq", UsageError, metrics=["pk"])
    evaluate("must be at least 1", UsageError, limit=0)
    write_map(found / "a_panoptic.png", scene)
    evaluate("are maps of the same image")
    with pytest.raises(UsageError, match="--dataset"):
        evaluate_folders(true, true, quiet=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"segments_info": None}, "`segments_info` must be a list of objects"),
        ({"file_name": "../a.png"}, "must be a path inside"),
        ({"segments_info": [{"id": 1, "category_id": 99}]}, "category_id 99"),
        ({"segments_info": [{"id": True, "category_id": 1}]}, "`id` must be a whole"),
        ({"segments_info": [{"id": 1, "category_id": 1}] * 2}, "is listed twice"),
        (
            {"segments_info": [{"id": 1, "category_id": 1, "score": "high"}]},
            "`score` must be a number, found 'high'",
        ),
    ],
)
def test_wrong_annotations_are_named(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    with OfficialWriter(tmp_path, CAMVID, format="coco") as writer:
        writer.add("a", np.zeros((4, 4), np.int64))
    path = tmp_path / "panoptic_predictions.json"
    document = json.loads(path.read_text())
    document["annotations"][0].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=match):
        evaluate_folders(tmp_path, tmp_path, CAMVID, quiet=True)


def frames_of_videos(rng: np.random.Generator, count: int) -> list[Frame]:
    """Draws videos of two frames with all that any metric asks for."""
    frames = []
    for video in range(count):
        scene = random_scene(rng, things=(11, 13))
        for _ in range(2):
            found = disturbed(rng, scene, wrong_class=13)
            depth = rng.uniform(1, 80, scene.shape)
            frames.append(
                Frame(
                    scene,
                    found,
                    scores={int(i): rng.uniform() for i in np.unique(found)},
                    sequence=str(video),
                    depth_groundtruth=depth,
                    depth_prediction=depth * rng.uniform(0.8, 1.3, scene.shape),
                )
            )
    return frames


def flattened(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    parts = (flattened(v, f"{path}/{k}") for k, v in value.items())
    return {key: number for part in parts for key, number in part.items()}


def test_what_workers_have_counted_is_the_whole() -> None:
    def counts() -> MetricSet:
        return MetricSet(KITTI, list(METRICS), windows=(1, 2))

    whole, merged, workers = counts(), counts(), [counts() for _ in range(3)]
    for frame in frames_of_videos(np.random.default_rng(2), 4):
        whole.update(frame)
        workers[int(str(frame.sequence)) % len(workers)].update(frame)
    for number in (2, 0, 1):
        # From another process.
        merged.merge(pickle.loads(pickle.dumps(workers[number])))
    expected = flattened(whole.report("x").to_json())
    found = flattened(merged.report("x").to_json())
    assert len(expected) > 200 and found.keys() == expected.keys()
    for key, value in expected.items():
        is_number = isinstance(value, int | float)
        assert found[key] == (pytest.approx(value) if is_number else value), key


def test_sets_of_other_metrics_do_not_merge() -> None:
    scene = random_scene(np.random.default_rng(2), things=(11, 13))
    with pytest.raises(UsageError):
        MetricSet(KITTI, ["pq", "miou"]).merge(MetricSet(KITTI, ["pq"]))
    with pytest.raises(DataError, match="dstq needs sequence"):
        MetricSet(KITTI, ["dstq"]).update(Frame(scene, scene))
