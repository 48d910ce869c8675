"""Where the images of a conversion come from."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.convert.images import ImageSet, open_data
from deeplab2_edge.datasets.registry import get_dataset, save_description
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import write_png
from tests.convert.tiny import picture

pytestmark = pytest.mark.tf

INFO = get_dataset("synthetic_street")


def write_images(folder: Path, count: int) -> Path:
    (folder / "images").mkdir(parents=True)
    for index in range(count):
        write_png(folder / "images" / f"{index:02}.png", picture(index))
    return folder


def open_both(
    folder: Path, *, calibration: int, verification: int
) -> tuple[ImageSet, ImageSet]:
    first, second = open_data(
        INFO,
        (33, 65),
        calibration_data=str(folder),
        calibration_images=calibration,
        verification_data=str(folder),
        verification_images=verification,
    )
    assert first is not None
    return first, second


def names(images: ImageSet) -> list[str]:
    return [sample.name for sample in images.samples]


def test_calibration_and_verification_take_different_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 10)
    calibration, verification = open_both(folder, calibration=4, verification=3)
    assert names(calibration) == ["00", "03", "06", "09"]  # spread evenly
    assert len(names(verification)) == 3
    assert not set(names(calibration)) & set(names(verification))


def test_too_few_images_serve_both(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 3)
    calibration, verification = open_both(folder, calibration=9, verification=2)
    assert names(calibration) == ["00", "01", "02"]
    assert names(verification) == ["00", "02"]


def test_labels_without_description_are_of_the_models_classes(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 2)
    (folder / "labels").mkdir()
    write_png(folder / "labels" / "00.png", np.full((33, 65), 3, np.uint8))
    _, verification = open_both(folder, calibration=1, verification=1)
    assert verification.has_labels


def test_labels_of_other_classes_are_not_used(tmp_path: Path) -> None:
    folder = write_images(tmp_path, 2)
    (folder / "labels").mkdir()
    write_png(folder / "labels" / "00.png", np.full((33, 65), 3, np.uint8))
    save_description(get_dataset("cityscapes_panoptic"), folder / "dataset.json")
    _, verification = open_both(folder, calibration=1, verification=1)
    assert not verification.has_labels
    assert "cityscapes_panoptic" in verification.notes[0]


def test_bare_images_need_no_note(tmp_path: Path) -> None:
    _, verification = open_both(
        write_images(tmp_path, 2), calibration=1, verification=1
    )
    assert verification.notes == ()


def test_synthetic_scenes_are_rendered_at_the_canvas() -> None:
    calibration, verification = open_data(
        INFO,
        (33, 65),
        calibration_data=None,
        calibration_images=100,
        verification_data=None,
        verification_images=2,
    )
    assert calibration is None
    assert verification.has_labels
    assert len(verification.samples) == 2
    assert verification.samples[0].load_image().shape == (33, 65, 3)


def test_synthetic_calibration_and_verification_differ() -> None:
    calibration, verification = open_data(
        INFO,
        (33, 65),
        calibration_data="synthetic:val",
        calibration_images=5,
        verification_data="synthetic:val",
        verification_images=3,
    )
    assert calibration is not None
    assert len(verification.samples) == 3
    assert not set(names(calibration)) & set(names(verification))


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        open_both(tmp_path, calibration=1, verification=1)


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_both(tmp_path / "nowhere", calibration=1, verification=1)
