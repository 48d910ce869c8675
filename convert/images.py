"""Finds the images a conversion looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from deeplab2_edge.datasets.folders import DESCRIPTION_NAME, SampleLike
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.errors import ConfigError, DataError
from deeplab2_edge.samples import SYNTHETIC, SampleSet, open_samples

# The synthetic world has no end; images are looked for among so many.
_MOST_SCENES = 4096


@dataclass(frozen=True)
class ImageSet:
    """Is a choice of samples and what is known about them.

    Attributes:
        location: Where they come from.
        samples: At least one.
        has_labels: Whether labels, if there are any, are of the model's classes.
        notes: What the user should know.
    """

    location: str
    samples: Sequence[SampleLike]
    has_labels: bool
    notes: tuple[str, ...] = ()


def open_data(
    info: DatasetInfo,
    canvas: tuple[int, int],
    *,
    calibration_data: str | None,
    calibration_images: int,
    verification_data: str | None,
    verification_images: int,
    in_order: bool = False,
) -> tuple[ImageSet | None, ImageSet]:
    """Opens images for calibration and verification.

    Both are spread evenly over their data. Where they come from the same data, they
    are different images, as long as there are enough.

    Args:
        info: The classes of the model.
        canvas: (height, width) of synthetic scenes.
        calibration_data: What `open_samples` takes, None for no calibration.
        calibration_images: Most images to calibrate with.
        verification_data: What `open_samples` takes, None for scenes of the
            synthetic world.
        verification_images: Most images to verify with.
        in_order: Take the first images as they come, not a choice of all: frames of
            videos.

    Raises:
        DataError: If there are no images.
    """
    calibration = None
    if calibration_data is not None:
        calibration = _pick(
            calibration_data, info, calibration_images, canvas, in_order=in_order
        )
    verification = _pick(
        verification_data or f"{SYNTHETIC}:val",
        info,
        verification_images,
        canvas,
        avoid=calibration.samples if calibration else (),
        in_order=in_order,
    )
    return calibration, verification


def open_same(
    location: str,
    info: DatasetInfo,
    canvas: tuple[int, int],
    names: Sequence[str],
) -> ImageSet | None:
    """Opens images again, by what `public_name` called them.

    Args:
        location: What `open_samples` takes.
        info: The classes of the model.
        canvas: (height, width) of synthetic scenes.
        names: Of the images, in order.

    Returns:
        None if one of them is not there.

    Raises:
        DataError: If there are no images.
    """
    is_synthetic = location.split(":")[0] == SYNTHETIC
    found = _open(location, info, canvas, _MOST_SCENES if is_synthetic else None)
    by_name = {public_name(sample.name): sample for sample in found.samples}
    if not names or not set(names) <= set(by_name):
        return None
    return _image_set(location, info, found, [by_name[name] for name in names])


def public_name(name: str) -> str:
    """Names an image without the path to it; record files have a number behind."""
    path, separator, rest = name.partition(": record ")
    if separator or PurePath(path).is_absolute():
        path = PurePath(path).name
    return path + separator + rest


def _pick(
    location: str,
    info: DatasetInfo,
    count: int,
    canvas: tuple[int, int],
    avoid: Sequence[SampleLike] = (),
    *,
    in_order: bool = False,
) -> ImageSet:
    """Picks samples evenly, those to avoid only if there are no others."""
    names = {sample.name for sample in avoid}
    is_synthetic = location.split(":")[0] == SYNTHETIC
    # The synthetic world has no end; elsewhere a choice is made from all there is.
    limit = count + len(avoid) if is_synthetic else None
    found = _open(location, info, canvas, limit)
    free = [sample for sample in found.samples if sample.name not in names]
    samples = free or list(found.samples)
    if not samples:
        raise DataError(f"{location}: holds no images")
    if count < len(samples):
        # Scenes are independent; the images of a folder may be frames of one drive.
        picks = np.linspace(0, len(samples) - 1, count).round().astype(int)
        is_first = is_synthetic or in_order
        samples = [samples[i] for i in (range(count) if is_first else picks)]
    return _image_set(location, info, found, samples)


def _image_set(
    location: str,
    info: DatasetInfo,
    found: SampleSet,
    samples: Sequence[SampleLike],
) -> ImageSet:
    """Finds out whether labels are of the model's classes."""
    has_labels = found.info.label_difference(info) is None
    notes: tuple[str, ...] = ()
    if not has_labels and found.info.num_classes > 1:
        notes = (
            f"the labels of {location} are of {found.info.name!r}, not of the "
            f"model's classes ({info.name!r}): compared without labels",
        )
    return ImageSet(location, samples, has_labels, notes)


def _open(
    location: str, info: DatasetInfo, canvas: tuple[int, int], limit: int | None
) -> SampleSet:
    """Opens data whose labels may be of the model's classes, of others, or missing."""
    path = Path(location)
    folder = path if path.is_dir() else path.parent
    choices: list[DatasetInfo | None] = [info, None]
    if (folder / DESCRIPTION_NAME).is_file():
        choices.reverse()
    try:
        return open_samples(location, choices[0], limit=limit, synthetic_size=canvas)
    except (ConfigError, DataError) as error:
        try:
            return open_samples(
                location, choices[1], limit=limit, synthetic_size=canvas
            )
        except (ConfigError, DataError):
            raise error from None
