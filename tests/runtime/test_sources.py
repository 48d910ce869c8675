"""Images, folders and videos as sources; videos written whole or not at all."""

import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from deeplab2_edge.errors import DataError, OutputError
from deeplab2_edge.images import write_png
from deeplab2_edge.runtime.sources import capture, open_sources
from deeplab2_edge.runtime.timing import WAIT, StageTimer
from deeplab2_edge.runtime.video import open_video
from tests.runtime.tiny_model import draw_scene


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "drive.avi"
    with open_video(path, 10.0) as writer:
        for shade in (0, 100, 200):
            writer.write(np.full((64, 96, 3), shade, np.uint8))
    return path


def test_folder_is_expanded_in_order_and_other_files_are_left(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG"):
        write_png(tmp_path / "x.png", draw_scene())
        (tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    sources = open_sources([str(tmp_path)])
    assert [Path(source.name).name for source in sources] == ["a.PNG", "b.png"]
    (frame,) = sources[0].frames()
    np.testing.assert_array_equal(frame.image, draw_scene())


def test_equal_stems_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "x.png", draw_scene())
    sources = open_sources([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [source.stem for source in sources] == ["x", "x_2"]


def test_video_frames_are_rgb_in_order(video: Path) -> None:
    (source,) = open_sources([str(video)])
    assert (source.kind, source.num_frames, source.fps) == ("video", 3, 10.0)
    frames = list(source.frames())
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert all(f.wait_ms is None and f.decode_ms > 0 for f in frames)
    for frame, shade in zip(frames, (0, 100, 200), strict=True):
        assert frame.image.shape == (64, 96, 3)
        assert abs(int(frame.image.mean()) - shade) < 6  # lossy


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_odd_sizes_and_changing_sizes_are_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    with open_video(path, 25.0) as writer:
        writer.write(np.zeros((65, 97, 3), np.uint8))
        writer.write(np.zeros((33, 47, 3), np.uint8))
    written = cv2.VideoCapture(str(path))
    assert written.get(cv2.CAP_PROP_FRAME_WIDTH) == 96
    assert written.get(cv2.CAP_PROP_FRAME_HEIGHT) == 64
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_video(tmp_path / "out.mp4", 25.0) as writer,
    ):
        writer.write(np.zeros((64, 96, 3), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_video_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError),
        open_video(tmp_path / "no/out.avi", 25.0) as writer,
    ):
        writer.write(np.zeros((64, 96, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_on_a_full_disk_is_refused(suffix: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of files need Unix")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), np.uint8)
    try:
        # No file may grow beyond 20 kB: the disk is full after some frames.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, former[1]))
        with (
            pytest.raises(OutputError, match="is the disk full"),
            open_video(tmp_path / f"out{suffix}", 10.0) as writer,
        ):
            for frame in noise:
                writer.write(frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_wrong_inputs_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    for name, message in (
        ("nowhere.jpg", "no such file"),
        ("empty", "has no images"),
        ("bad.mp4", "cannot be opened as a video"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_sources([str(tmp_path / name)])
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["99", "/dev/video99"])
def test_camera_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"camera {name} cannot be opened"):
        open_sources([name])


def test_a_camera_that_vanishes_is_named_after_its_frames(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No camera here: OpenCV reads a file in its place, which ends as a camera does
    # whose cable is pulled.
    monkeypatch.setattr(capture.cv2, "CAP_V4L2", cv2.CAP_FFMPEG)
    timer = StageTimer()
    frames = capture.read_camera(str(video), None, None, timer)
    for _ in range(3):
        with timer.stage("decode"):
            assert next(frames).shape == (64, 96, 3)
        assert set(timer.take()) == {WAIT, "decode"}
    with pytest.raises(DataError, match="gave 3 frames and then no more"):
        next(frames)
    with pytest.raises(DataError, match="gives 64x96 .*, not 480x640"):
        capture.probe_camera(str(video), (480, 640), None)
    assert capture.probe_camera(str(video), (64, 96), 10.0).fps == 10.0


def test_a_video_cut_short_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    with open_video(path, 10.0) as writer:
        for shade in range(60):
            writer.write(np.full((64, 96, 3), shade, np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (source,) = open_sources([str(path)])
    count = 0
    with pytest.raises(DataError, match=r"ends after \d+ of 60 frames"):
        for frame in source.frames():
            count += 1
            assert abs(int(frame.image.mean()) - frame.index) < 6
    assert 10 < count < 50


def test_a_folder_of_a_data_set_gives_its_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "a.png", np.zeros((4, 5, 3), np.uint8))
    assert [source.stem for source in open_sources([str(tmp_path)])] == ["a"]


def test_a_folder_of_folders_is_a_video_each(tmp_path: Path) -> None:
    for name in ("images/b10/1.png", "images/b9/0.png", "images/b9/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, np.zeros((4, 5, 3), np.uint8))
    (tmp_path / "panoptic").mkdir()
    write_png(tmp_path / "panoptic" / "0.png", np.zeros((4, 5, 3), np.uint8))
    for place in (tmp_path, tmp_path / "images"):
        sources = open_sources([str(place)])
        assert [source.stem for source in sources] == ["b9_0", "b9_1", "b10_1"]
        assert [source.clip == sources[0].clip for source in sources] == [
            True,
            True,
            False,
        ]
