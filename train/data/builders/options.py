"""What the records of a published data set shall hold."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from deeplab2_edge.errors import DataError


@dataclasses.dataclass(frozen=True)
class LayoutOptions:
    """Changes what is written.

    Attributes:
        two_frames: STEP: with the frame before, for Motion-DeepLab.
        keeps_crowd: Crowd keeps its class with instance 0; else it is ignored.
        semantic_only: Cityscapes: classes without instances.
        allows_unlabelled: Missing labels give records without a label.
    """

    two_frames: bool = False
    keeps_crowd: bool = False
    semantic_only: bool = False
    allows_unlabelled: bool = False

    # Options of the command line that not every data set has.
    WORDS: ClassVar[dict[str, str]] = {
        "two_frames": "two-frames",
        "keeps_crowd": "keep-crowd",
        "semantic_only": "semantic-only",
        "allows_unlabelled": "allow-unlabeled",
    }

    def given(self) -> tuple[str, ...]:
        """Names the options of `WORDS` that are set."""
        return tuple(name for name in self.WORDS if getattr(self, name))


def require_dir(path: Path, layout: str) -> Path:
    """Returns a folder of an official layout.

    Raises:
        DataError: If it is missing; says what the layout has.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; the official layout has {layout}")
    return path


def require_file(path: Path, layout: str) -> Path:
    """Returns a file of an official layout; errors as `require_dir`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; the official layout has {layout}")
    return path
