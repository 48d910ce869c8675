"""Records from a folder of images and labels."""

import hashlib
from dataclasses import dataclass

from deeplab2_edge.datasets.folders import FolderDataset, Sample
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import (
    decode_image,
    encode_jpeg,
    encode_png,
    read_file,
    read_header,
)
from deeplab2_edge.records import Frame, encode_example


@dataclass(frozen=True)
class FolderSource:
    """Turns each sample of a folder into one record.

    RGB PNG and JPEG files are stored byte for byte. Grey, palette, CMYK, 16-bit or
    turned images are decoded and encoded again in their format, WebP and BMP as PNG.
    """

    dataset: FolderDataset

    @property
    def info(self) -> DatasetInfo:
        """The data set of the folder."""
        return self.dataset.info

    def __len__(self) -> int:
        return len(self.dataset.samples)

    def encode(self, index: int) -> list[bytes]:
        """Returns the one record of a sample.

        Raises:
            DataError: If image or label cannot be used, their sizes differ, or a
                label is missing in a folder with labels.
        """
        sample = self.dataset.samples[index]
        image, size = _load_upright(sample)
        panoptic = sample.load_panoptic()
        if sample.label is None and self.dataset.is_labelled:
            raise DataError(
                f"{sample.image_path}: has no label; add it, or move the image away"
            )
        if panoptic is not None and sample.label and panoptic.shape != size:
            height, width = panoptic.shape
            raise DataError(
                f"{sample.label.path}: is {height}x{width}, but "
                f"{sample.image_path.name} is {size[0]}x{size[1]} (height x width)"
            )
        return [encode_example(Frame(image, panoptic), filename=sample.name)]

    def fingerprint(self) -> str:
        """Changes with the files' names, sizes and times, the classes and segments."""
        digest = hashlib.sha256(repr(self.info).encode())
        for sample in self.dataset.samples:
            words: list[object] = [sample.name, sample.label]
            paths = [sample.image_path]
            paths += [sample.label.path] if sample.label else []
            for path in paths:
                try:
                    stat = path.stat()
                except OSError as error:
                    raise DataError(
                        f"{path}: cannot be read ({error.strerror})"
                    ) from error
                words += [str(path), stat.st_size, stat.st_mtime_ns]
            segments = getattr(sample.label, "segments", ())
            digest.update(repr([*words, segments]).encode())
        return digest.hexdigest()


def _load_upright(sample: Sample) -> tuple[bytes, tuple[int, int]]:
    """Returns the bytes of an upright RGB image file, and height and width."""
    where = str(sample.image_path)
    data = read_file(sample.image_path)
    header = read_header(data, where=where)
    is_stored_as_is = header.format in ("png", "jpeg") and header.is_plain_rgb
    image = decode_image(data, where=where)  # also proves that it can be decoded
    if not is_stored_as_is:
        data = encode_jpeg(image) if header.format == "jpeg" else encode_png(image)
    return data, (image.shape[0], image.shape[1])
