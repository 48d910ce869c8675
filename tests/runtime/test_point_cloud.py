"""Point clouds: known planes, files read back by a parser of their own, pictures."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab2_edge.errors import DataError, OutputError, UsageError
from deeplab2_edge.runtime.point_cloud import (
    Camera,
    Intrinsics,
    PointCloud,
    default_eye,
    make_point_cloud,
    parse_camera,
    render_points,
    write_ply,
)
from deeplab2_edge.synth import render_scene

SIZE = (9, 13)
CAMERA = Intrinsics(fx=10.0, fy=8.0, cx=6.0, cy=4.0)


def flat(color: tuple[int, int, int] = (1, 2, 3)) -> NDArray[np.uint8]:
    image = np.empty((*SIZE, 3), np.uint8)
    image[:] = color
    return image


def test_points_of_a_tilted_plane_satisfy_its_equation() -> None:
    # Depth along each pixel's ray of the plane a x + b y + c z = d.
    normal, distance = np.array([0.2, -0.3, 1.0]), 5.0
    rows, columns = np.indices(SIZE)
    rays = np.stack(
        [(columns - 6.0) / 10.0, (rows - 4.0) / 8.0, np.ones(SIZE)], axis=-1
    )
    depth = (distance / (rays @ normal)).astype(np.float32)
    cloud = make_point_cloud(depth, flat(), CAMERA)
    assert cloud.points_xyz.shape == (9 * 13, 3)
    np.testing.assert_allclose(cloud.points_xyz @ normal, distance, rtol=1e-6)
    np.testing.assert_array_equal(cloud.points_xyz[:, 2], depth.ravel())


def test_axes_are_right_down_forward_and_the_center_is_straight_ahead() -> None:
    cloud = make_point_cloud(np.full(SIZE, 2, np.float32), flat(), CAMERA)
    points = cloud.points_xyz.reshape(*SIZE, 3)
    assert points[4, 6].tolist() == [0, 0, 2]
    assert points[4, 7].tolist() == pytest.approx([0.2, 0, 2])
    assert points[5, 6].tolist() == pytest.approx([0, 0.25, 2])
    np.testing.assert_allclose(cloud.spacing, [[0.2, 0.25]] * (9 * 13), rtol=1e-6)


def test_pixels_without_depth_and_hidden_ones_are_left_out() -> None:
    depth = np.full(SIZE, 2, np.float32)
    depth[0, :4] = 0, -1, np.nan, np.inf
    is_shown = np.ones(SIZE, np.bool_)
    is_shown[8] = False
    cloud = make_point_cloud(depth, flat(), CAMERA, is_shown=is_shown)
    assert len(cloud.points_xyz) == 9 * 13 - 4 - 13
    assert np.isfinite(cloud.points_xyz).all()


def test_points_of_a_rendered_scene_lie_on_its_ground() -> None:
    scene = render_scene(0, size=(65, 129))
    (fx, _, cx), (_, fy, cy), _ = scene.intrinsics.tolist()
    is_road = scene.panoptic == 3000
    cloud = make_point_cloud(
        scene.depth, scene.image, Intrinsics(fx, fy, cx, cy), is_shown=is_road
    )
    near = cloud.points_xyz[cloud.points_xyz[:, 2] < 15].astype(np.float64)
    # The road is a plane below the camera: the best plane through it is near it.
    center = near.mean(axis=0)
    _, singular, axes = np.linalg.svd(near - center, full_matrices=False)
    assert singular[2] / math.sqrt(len(near)) < 0.05  # meters
    assert abs(axes[2][1]) > 0.95  # its normal points up or down
    assert center[1] > 1


def read_ply(path: Path) -> tuple[list[str], list[tuple[float, ...]]]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    (count,) = [int(line.split()[2]) for line in lines if "element vertex" in line]
    assert len(body) == count * 15
    return lines, [struct.unpack_from("<fffBBB", body, 15 * n) for n in range(count)]


def test_ply_is_read_back_by_another_parser(tmp_path: Path) -> None:
    depth = np.zeros(SIZE, np.float32)
    depth[4, 6], depth[5, 7] = 2, 4
    image = flat()
    image[5, 7] = 255, 128, 0
    write_ply(tmp_path / "a.ply", make_point_cloud(depth, image, CAMERA))
    lines, vertices = read_ply(tmp_path / "a.ply")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert [line for line in lines if line.startswith("property")] == [
        "property float x",
        "property float y",
        "property float z",
        "property uchar red",
        "property uchar green",
        "property uchar blue",
    ]
    assert vertices == [
        (0, 0, 2, 1, 2, 3),
        (pytest.approx(0.4), 0.5, 4, 255, 128, 0),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_ply_of_no_points_is_whole(tmp_path: Path) -> None:
    cloud = make_point_cloud(np.zeros(SIZE, np.float32), flat(), CAMERA)
    write_ply(tmp_path / "a.ply", cloud)
    assert read_ply(tmp_path / "a.ply")[1] == []
    eye = default_eye(cloud)
    assert (render_points(cloud, CAMERA, SIZE, eye=eye) == 24).all()


def test_ply_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    cloud = make_point_cloud(np.ones(SIZE, np.float32), flat(), CAMERA)
    with pytest.raises(OutputError, match=r"nowhere.a\.ply"):
        write_ply(tmp_path / "nowhere" / "a.ply", cloud)
    assert list(tmp_path.iterdir()) == []


def test_picture_from_the_same_place_is_the_image_itself() -> None:
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    square = Intrinsics(10, 10, 6, 4)
    cloud = make_point_cloud(np.full(SIZE, 3, np.float32), image, square)
    picture = render_points(cloud, square, SIZE, eye=(0, 0, 0))
    np.testing.assert_array_equal(picture, image)


def test_nearer_points_hide_farther_ones_in_any_order() -> None:
    points = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3]], np.float32)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    spacing = np.full((3, 2), 0.001, np.float32)
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        cloud = PointCloud(points[order], colors[order], spacing)
        front = render_points(cloud, CAMERA, SIZE, eye=(0, 0, 0))
        assert front[4, 6].tolist() == [255, 0, 0]
        behind = render_points(cloud, CAMERA, SIZE, eye=(0, 0, 9), target=(0, 0, 2))
        assert behind[4, 6].tolist() == [0, 0, 255]
        assert (behind != 24).any(axis=-1).sum() == 1


def test_camera_to_the_right_sees_points_move_left() -> None:
    spacing = np.full((1, 2), 0.001, np.float32)
    cloud = PointCloud(
        np.array([[0, 0, 2]], np.float32), np.array([[9, 9, 9]], np.uint8), spacing
    )
    picture = render_points(
        cloud, CAMERA, SIZE, eye=(0.4, -0.5, 0), target=(0.4, -0.5, 2)
    )
    assert picture[6, 4].tolist() == [9, 9, 9]  # 10 * 0.4 / 2 left, 8 * 0.5 / 2 down


def test_field_of_view_meets_the_edges_of_the_image() -> None:
    known = Camera(field_of_view=90).at((101, 201))
    assert (known.fx, known.fy, known.cx, known.cy) == (
        pytest.approx(100.5),
        known.fx,
        100,
        50,
    )
    assert Camera().at((10, 20)).fx == pytest.approx(10 / math.tan(math.pi / 6))


def test_numbers_of_another_size_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    document = {"fx": 100, "fy": 80, "cx": 64, "cy": 32, "image_size": [65, 129]}
    path.write_text(json.dumps(document))
    camera = parse_camera(str(path))
    assert camera.at((65, 129)) == Intrinsics(100, 80, 64, 32)
    assert camera.at((33, 257)) == Intrinsics(200, 40, 128, 16)


def test_camera_files_of_cityscapes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    intrinsic = {"fx": 2262.5, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}
    path.write_text(json.dumps({"extrinsic": {}, "intrinsic": intrinsic}))
    assert parse_camera(str(path)).at((1024, 2048)).cx == 1096.98


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("1,2,3", "four numbers"),
        ("a,b,c,d", "four numbers"),
        ("0,5,5,5", "fx is 0.0; expected a positive number"),
        ("5,5,nan,5", "cx is nan"),
        ("nowhere.json", "JSON"),
    ],
)
def test_wrong_cameras_are_refused(text: str, mentions: str) -> None:
    with pytest.raises(UsageError, match=mentions):
        parse_camera(text)


@pytest.mark.parametrize(
    ("document", "mentions"),
    [
        ({"fx": 1, "fy": 1, "cx": 1}, "`cy` is missing"),
        ({"fx": "1", "fy": 1, "cx": 1, "cy": 1}, "`fx` is '1'"),
        ({"fx": True, "fy": 1, "cx": 1, "cy": 1}, "`fx` is True"),
        ({"fx": -1, "fy": 1, "cx": 1, "cy": 1}, "fx is -1.0"),
        ({"fx": 1, "fy": 1, "cx": 1, "cy": 1, "image_size": [0, 1]}, "image_size"),
        ({"intrinsic": {"fx": 1, "fy": 1, "cx": 1}}, "`u0` is missing"),
    ],
)
def test_wrong_camera_files_are_named(
    tmp_path: Path, document: dict[str, object], mentions: str
) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=mentions) as raised:
        parse_camera(str(path))
    assert str(path) in str(raised.value)


def test_camera_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    path.write_text("fx: 1")
    with pytest.raises(DataError, match=r"camera\.json: is not valid JSON"):
        parse_camera(str(path))


def test_numbers_of_a_larger_image_are_refused() -> None:
    with pytest.raises(UsageError, match=r"outside an image of 65x129.*image_size"):
        parse_camera("2262,2265,1096,513").at((65, 129))


def test_a_viewing_camera_needs_something_to_look_at() -> None:
    cloud = make_point_cloud(np.full(SIZE, 3, np.float32), flat(), CAMERA)
    with pytest.raises(UsageError, match="another place"):
        render_points(cloud, CAMERA, SIZE, eye=(0, 0, 3))
    above = render_points(cloud, CAMERA, SIZE, eye=(0, -5, 3))
    assert above.shape == (*SIZE, 3)


@pytest.mark.parametrize("degrees", [0.0, 180.0, math.nan])
def test_wrong_field_of_view_is_refused(degrees: float) -> None:
    with pytest.raises(UsageError, match="field of view"):
        Camera(field_of_view=degrees)
