"""Records of single images: one's own folders, and the published image data sets."""

from dataclasses import dataclass
from pathlib import Path

from deeplab2_edge.datasets.coco_panoptic import read_annotations
from deeplab2_edge.datasets.folders import FolderDataset, Sample
from deeplab2_edge.datasets.info import DatasetInfo
from deeplab2_edge.errors import DataError
from deeplab2_edge.images import list_images
from deeplab2_edge.records import encode_example
from deeplab2_edge.train.data.builders.frames import (
    fingerprint_names,
    load_frame,
    sample_state,
)
from deeplab2_edge.wording import counted


@dataclass(frozen=True)
class FolderSource:
    """Turns each sample of a folder into one record.

    RGB PNG and JPEG files are stored byte for byte. Grey, palette, CMYK, 16-bit or
    turned images are decoded and encoded again in their format, WebP and BMP as PNG.

    Attributes:
        dataset: The images and labels.
        settings: How labels are read; records of other settings are another job.
    """

    dataset: FolderDataset
    settings: tuple[str, ...] = ()

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
        frame = load_frame(sample, is_label_due=self.dataset.is_labelled)
        return [encode_example(frame, filename=sample.name)]

    def fingerprint(self) -> str:
        """Changes with the classes, the settings and the names of the images."""
        words = ("folder", *self.settings)
        return fingerprint_names(self.info, words, self.dataset.samples)

    def state(self, index: int) -> list[object]:
        """Changes with image and label file, and with the segments."""
        return sample_state(self.dataset.samples[index])


def open_annotated(
    root: Path,
    annotation: Path,
    image_dir: Path,
    info: DatasetInfo,
    *,
    crowd_is_ignored: bool,
    checks_areas: bool,
) -> FolderSource:
    """Opens images with one COCO panoptic file, which must annotate all of them.

    Raises:
        DataError: If images, PNGs and annotations do not belong together.
    """
    coco = read_annotations(
        root,
        annotation,
        info,
        crowd_is_ignored=crowd_is_ignored,
        image_dir=image_dir,
        checks_areas=checks_areas,
    )
    samples = tuple(Sample(*entry) for entry in coco.entries)
    annotated = {sample.image_path for sample in samples}
    strays = [p for p in list_images(image_dir).values() if p not in annotated]
    if strays:
        raise DataError(
            f"{strays[0]}: is not annotated in {annotation.name} (so are "
            f"{counted(len(strays), 'image')} in all); complete the annotations, or "
            "move the images away"
        )
    for sample in samples:
        if sample.label is not None and not sample.label.path.is_file():
            raise DataError(
                f"{sample.label.path}: the label of {sample.image_path.name} is "
                f"missing; {annotation.name} lists it"
            )
    settings = () if crowd_is_ignored else ("keeps crowd",)
    folder = FolderDataset(info, samples, image_dir, coco.label_dir)
    return FolderSource(folder, settings)


def open_images(
    image_dir: Path, info: DatasetInfo, *, name_suffix: str = ""
) -> FolderSource:
    """Opens the images of a test split, which have no labels.

    Args:
        image_dir: Where they lie, in subfolders too.
        info: The data set.
        name_suffix: What is cut off a file's stem to get the name of the record.

    Raises:
        DataError: If there are none.
    """
    samples = tuple(
        Sample(path.stem.removesuffix(name_suffix), path)
        for path in list_images(image_dir).values()
    )
    return FolderSource(FolderDataset(info, samples, image_dir))
