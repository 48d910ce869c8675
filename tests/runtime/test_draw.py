"""Drawings: instances that keep their colors, depth with its scale, panels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.datasets.registry import get_dataset
from deeplab2_edge.errors import DataError, UsageError
from deeplab2_edge.images import read_image
from deeplab2_edge.runtime.classes import ClassTable
from deeplab2_edge.runtime.draw import (
    color_depth,
    draw_depth,
    draw_panel,
    instance_color,
)
from deeplab2_edge.runtime.point_cloud import Camera, Intrinsics
from deeplab2_edge.runtime.results import PanopticResult, result_from_maps
from deeplab2_edge.runtime.tracking import ResultTracker
from deeplab2_edge.runtime.views import (
    Artist,
    ViewOptions,
    choose_kinds,
    encode_depth,
    open_views,
    parse_kinds,
    save_drawn,
)
from deeplab2_edge.synth import render_video

STREET = get_dataset("synthetic_street")
SKY, ROAD, CAR, VOID = 0, 3000, 8000, 255_000
# Sky above road; two cars; one void pixel.
SMALL = np.array(
    [[SKY] * 4, [ROAD, CAR + 1, CAR + 2, ROAD], [ROAD] * 3 + [VOID]], np.int32
)


def result_of(
    panoptic: NDArray[np.int32], depth: NDArray[np.float32] | None = None
) -> PanopticResult:
    image = np.full((*panoptic.shape, 3), 100, np.uint8)
    return result_from_maps(image, panoptic, STREET, depth=depth)


def test_results_of_maps_list_their_segments() -> None:
    result = result_from_maps(
        np.zeros((3, 4, 3), np.uint8), SMALL, STREET, scores={8001: 0.5, 3000: 0.9}
    )
    assert [(s.id, s.area_px, s.score) for s in result.segments] == [
        (0, 4, None),
        (3000, 5, None),
        (8001, 1, 0.5),
        (8002, 1, None),
    ]
    assert result.segments[3].box_xyxy == (2, 1, 3, 2)
    assert result.semantic.tolist()[2] == [3, 3, 3, 255]


def test_depth_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"depth has shape \[2, 2\]"):
        result_of(SMALL, np.ones((2, 2), np.float32))


def test_instances_have_their_own_colors_and_all_else_is_dark_and_grey() -> None:
    panoptic = np.repeat(np.repeat(SMALL, 8, axis=0), 8, axis=1)
    drawn = result_of(panoptic).instance_map()
    first, second = drawn[12, 12], drawn[12, 20]  # away from the white contours
    assert (first != second).any()
    for color, number in ((first, 8001), (second, 8002)):
        expected = 0.2 * 100 + 0.8 * np.array(instance_color(number, 1000))
        np.testing.assert_allclose(color, expected, atol=1)
    for y, x in ((4, 4), (20, 4), (20, 28)):  # sky, road, void
        assert drawn[y, x].tolist() == [45, 45, 45]


def test_classes_alone_show_no_instances() -> None:
    panoptic = np.repeat(np.repeat(SMALL, 8, axis=0), 8, axis=1)
    drawn = result_of(panoptic).semantic_overlay(alpha=1.0)
    assert (drawn[8:16, 8:24] == np.array(STREET.colors[8])).all()
    assert drawn[20, 28].tolist() == [100, 100, 100]  # void shows the image


def test_colors_of_instances_stay_over_the_frames_of_a_video() -> None:
    colors: dict[int, set[tuple[int, ...]]] = {}
    for scene in render_video(1, num_frames=4, size=(65, 129)):
        result = result_from_maps(scene.image, scene.panoptic, STREET)
        flat = result_from_maps(
            np.zeros_like(scene.image), scene.panoptic, STREET
        ).instance_map(labels=False)
        for segment in result.segments:
            if segment.is_thing:
                inner = cv2.erode(
                    segment.mask.view(np.uint8), np.ones((3, 3), np.uint8)
                )
                found = {tuple(c) for c in flat[inner > 0].tolist()}
                colors.setdefault(segment.id, set()).update(found)
    assert len(colors) >= 2
    assert all(len(found) <= 1 for found in colors.values())
    seen = [color for found in colors.values() for color in found]
    assert len(set(seen)) == len(seen) >= 2


def test_tracking_gives_instances_of_all_frames_one_id_and_keeps_the_rest() -> None:
    frames = list(render_video(1, num_frames=3, size=(65, 129)))
    tracker = ResultTracker(STREET)
    first = None
    for number, scene in enumerate(frames):
        # As a model of one image numbers them: anew in every frame.
        panoptic = scene.panoptic.copy()
        is_thing = np.isin(panoptic // 1000, STREET.thing_ids)
        panoptic[is_thing & (panoptic % 1000 > 0)] += 10 * number
        tracked = tracker(result_from_maps(scene.image, panoptic, STREET))
        assert tracked.metadata.label_divisor == 10_000
        for segment in tracked.segments:
            assert segment.mask.sum() == segment.area_px
            assert segment.class_id == segment.id // 10_000
            rows, columns = np.nonzero(segment.mask)
            left, top, _, _ = segment.box_xyxy
            assert (left, top) == (columns.min(), rows.min())
        ids = {s.id for s in tracked.segments if s.is_thing and s.area_px > 60}
        first = first or ids
        assert len(first & ids) >= 2
        assert sorted(s.id for s in tracked.segments) == [
            s.id for s in tracked.segments
        ]


def test_depth_colors_go_from_light_to_dark_and_unknown_is_grey() -> None:
    depth = np.array([[1, 2, 4, 20, 80, 200, 0, np.nan]], np.float32)
    colors = color_depth(depth)[0].astype(int)
    light = colors @ [299, 587, 114]
    assert (np.diff(light[1:5]) < 0).all()
    assert colors[0].tolist() == colors[1].tolist()  # nearer than the first color
    assert colors[4].tolist() == colors[5].tolist()
    assert colors[6].tolist() == colors[7].tolist() == [96, 96, 96]
    lightest = cv2.applyColorMap(np.array([[255]], np.uint8), cv2.COLORMAP_VIRIDIS)
    assert colors[1].tolist() == lightest[0, 0, ::-1].tolist()


def test_depth_scale_shows_the_color_of_its_meters() -> None:
    depth = np.full((200, 120), 20, np.float32)
    picture = draw_depth(depth, limits=(2, 80))
    assert picture.shape[0] == 200
    assert picture.shape[1] > 150
    np.testing.assert_array_equal(picture[:, :120], color_depth(depth))
    scale = picture[:, 120:].reshape(200, -1, 3).astype(int)
    bar = scale[:, scale.std(axis=(0, 2)).argmax()]
    distances = np.abs(bar - picture[0, 0]).sum(axis=1)
    # 20 m lies where the logarithm says, from far at the top to near below.
    share = np.log(80 / 20) / np.log(80 / 2)
    assert distances.argmin() / 200 == pytest.approx(share, abs=0.06)
    small = draw_depth(np.ones((50, 50), np.float32))
    assert small.shape == (50, 50, 3)


@pytest.mark.parametrize("limits", [(0, 5), (5, 5), (1, np.inf)])
def test_wrong_range_of_depth_is_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="0 < near < far"):
        color_depth(np.ones((2, 2), np.float32), limits=limits)


def test_depth_is_stored_in_parts_of_a_meter() -> None:
    depth = np.array([[0, 1, 1.5, 255.99, 400, np.nan, -1]], np.float32)
    assert encode_depth(depth).tolist() == [[0, 256, 384, 65533, 65535, 0, 0]]


def test_panel_holds_all_pictures_as_they_are() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        (name, rng.integers(0, 255, (40, 60, 3), np.uint8)) for name in ("a", "b", "c")
    ]
    panel = draw_panel(pictures)
    assert panel.shape[1] == 2 * 60 + 3 * 4
    for _, picture in pictures:
        # Each lies somewhere, pixel by pixel.
        match = cv2.matchTemplate(panel, picture, cv2.TM_SQDIFF)
        y, x = np.unravel_index(match.argmin(), match.shape)
        np.testing.assert_array_equal(panel[y : y + 40, x : x + 60], picture)


def test_points_leave_out_sky_void_and_unknown_depth() -> None:
    depth = np.full((3, 4), 7, np.float32)
    depth[2, 0] = 0
    result = result_of(SMALL, depth)
    camera = Camera(Intrinsics(5, 5, 1.5, 1))
    cloud = result.point_cloud(camera)
    assert len(cloud.points_xyz) == 12 - 4 - 1 - 1
    assert (cloud.colors == 100).all()
    painted = result.point_cloud(camera, colors="panoptic").colors.tolist()
    assert painted[0] == list(STREET.colors[3])
    assert painted[1] != painted[2]


def test_result_without_depth_has_no_points() -> None:
    for draw in (result_of(SMALL).point_cloud, result_of(SMALL).depth_map):
        with pytest.raises(UsageError, match="no depth"):
            draw()


def test_all_files_of_an_image(tmp_path: Path) -> None:
    depth = np.full((3, 4), 7, np.float32)
    kinds = choose_kinds(("all",), has_instances=True, has_depth=True, source="x")
    drawn = Artist(ViewOptions(kinds)).draw(result_of(SMALL, depth))
    paths = save_drawn(tmp_path, "a", drawn)
    assert sorted(path.name for path in paths.values()) == [
        "a_depth.png",
        "a_depth_color.png",
        "a_instances.png",
        "a_overlay.png",
        "a_panel.png",
        "a_points.ply",
        "a_points.png",
        "a_semantic.png",
    ]
    assert sorted(paths.values()) == sorted(tmp_path.iterdir())
    stored = cv2.imread(str(tmp_path / "a_depth.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.dtype == np.uint16
    assert (stored == 7 * 256).all()


def test_panel_alone_shows_all_there_is_and_writes_one_file(tmp_path: Path) -> None:
    depth = np.full((3, 4), 7, np.float32)
    drawn = Artist(ViewOptions(("panel",))).draw(result_of(SMALL, depth))
    paths = save_drawn(tmp_path, "a", drawn)
    assert list(paths) == ["panel"]
    without = Artist(ViewOptions(("panel",))).draw(result_of(SMALL)).pictures["panel"]
    assert read_image(paths["panel"]).shape[0] > without.shape[0]


def test_videos_hold_pictures_and_folders_hold_depth_and_points(tmp_path: Path) -> None:
    panoptic = np.repeat(np.repeat(SMALL, 16, axis=0), 16, axis=1)
    depth = np.full(panoptic.shape, 7, np.float32)
    kinds = ("instances", "depth", "point-cloud")
    artist = Artist(ViewOptions(kinds))
    with open_views(tmp_path, "a", kinds, 10.0) as views:
        for _ in range(2):
            views.write(artist.draw(result_of(panoptic, depth)))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == [
        "a_depth/000000.png",
        "a_depth/000001.png",
        "a_depth_color.mp4",
        "a_instances.mp4",
        "a_points.mp4",
        "a_points/000000.ply",
        "a_points/000001.ply",
    ]


def test_clouds_of_a_video_are_seen_from_one_place() -> None:
    panoptic = np.full((20, 30), ROAD, np.int32)
    near = result_of(panoptic, np.full((20, 30), 4, np.float32))
    far = result_of(panoptic, np.full((20, 30), 40, np.float32))
    artist = Artist(ViewOptions(("point-cloud",)))
    one, two = (artist.draw(r).pictures["point-cloud"] for r in (near, far))
    artist.begin_video()
    alone = artist.draw(far).pictures["point-cloud"]
    np.testing.assert_array_equal(one, alone)  # the same shape, ten times as large
    assert (two != alone).any()


def test_kinds_are_chosen_by_what_there_is() -> None:
    assert parse_kinds("depth, overlay,depth") == ("depth", "overlay")
    choose = {"has_instances": True, "has_depth": True, "source": "x"}
    assert choose_kinds(("depth", "overlay"), **choose) == ("overlay", "depth")  # type: ignore[arg-type]
    assert choose_kinds((), **choose) == ("overlay", "depth")  # type: ignore[arg-type]
    bare = {"has_instances": False, "has_depth": False, "source": "x"}
    assert choose_kinds((), **bare) == ("overlay",)  # type: ignore[arg-type]
    assert choose_kinds(("all",), **bare) == ("overlay", "semantic", "panel")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="x: has no instances"):
        choose_kinds(("instances",), **bare)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'depths'; there are overlay"):
        parse_kinds("depths")


def test_class_table_copies_what_it_is_made_of() -> None:
    table = ClassTable.of(STREET, label_divisor=10_000)
    assert table.num_classes == STREET.num_classes
    assert table.thing_ids == STREET.thing_ids
    assert table.label_divisor == 10_000
