"""Reading the files of one frame, the same way for every data set."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from deeplab2_edge.datasets.folders import Sample
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import (
    decode_image,
    encode_jpeg,
    encode_png,
    read_file,
    read_header,
)
from deeplab2_edge.records import Frame


def load_frame(sample: Sample, *, is_label_due: bool) -> Frame:
    """Reads image and label of a sample, ready to be stored.

    RGB PNG and JPEG files are kept byte for byte. Grey, palette, CMYK, 16-bit or
    turned images are decoded and encoded again in their format, WebP and BMP as PNG.

    Raises:
        DataError: If image or label cannot be used, their sizes differ, or the label
            is missing though due.
    """
    image, size = _load_upright(sample.image_path)
    panoptic = sample.load_panoptic()
    if sample.label is None and is_label_due:
        raise DataError(
            f"{sample.image_path}: has no label; add it, or move the image away"
        )
    if panoptic is not None and sample.label:
        check_size(sample.label.path, panoptic.shape, sample.image_path, size)
    return Frame(image, panoptic)


def check_size(
    path: Path, found: tuple[int, ...], image_path: Path, size: tuple[int, int]
) -> None:
    """Refuses a map that has not the height and width of its image.

    Raises:
        DataError: If it has not; names both files.
    """
    if found != size:
        raise DataError(
            f"{path}: is {'x'.join(map(str, found))}, but {image_path.name} is "
            f"{size[0]}x{size[1]} (height x width); export both in one size"
        )


def fingerprint_names(
    info: DatasetInfo, words: Iterable[object], samples: Iterable[Sample]
) -> str:
    """Changes with the classes, the settings and the names of the samples."""
    digest = hashlib.sha256(repr((info, *words)).encode())
    for sample in samples:
        digest.update(repr(sample.name).encode())
    return digest.hexdigest()


def sample_state(sample: Sample) -> list[object]:
    """Changes with the files' paths, sizes and times, and with the segments.

    Raises:
        DataError: If a file is missing.
    """
    state: list[object] = [sample.label, *file_state(sample.image_path)]
    state += file_state(sample.label.path) if sample.label else []
    return [*state, getattr(sample.label, "segments", ())]


def file_state(path: Path) -> list[object]:
    """Changes with the path, size and time of a file; errors as `sample_state`."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _load_upright(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Returns the bytes of an upright RGB image file, and height and width."""
    data = read_file(path)
    header = read_header(data, where=str(path))
    is_stored_as_is = header.format in ("png", "jpeg") and header.is_plain_rgb
    image = decode_image(data, where=str(path))  # also proves that it can be decoded
    if not is_stored_as_is:
        data = encode_jpeg(image) if header.format == "jpeg" else encode_png(image)
    return data, (image.shape[0], image.shape[1])
