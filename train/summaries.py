"""TensorBoard scalars and pictures of a training run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.datasets.registry import DatasetInfo
from deeplab2_edge.layers.resize import resize_bilinear
from deeplab2_edge.models import resize_outputs
from deeplab2_edge.optional import require
from deeplab2_edge.train.checkpoint_folder import readable_write_errors

tf = require("tensorflow", extra="train")

# Pictures of one batch that are written.
_MAX_IMAGES = 2
# Share of the colors in an overlay.
_ALPHA = 0.6


class SummaryWriter:
    """Writes what TensorBoard shows of a run.

    Args:
        folder: For the event files.
        info: Colors of the classes.
    """

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        self._folder = folder
        self._writer = tf.summary.create_file_writer(str(folder))
        # One more entry: void and everything beyond the classes is black.
        self._palette = np.array([*info.colors, (0, 0, 0)], np.float32)
        self._num_classes = info.num_classes

    def __enter__(self) -> "SummaryWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def scalars(
        self,
        step: int,
        losses: dict[str, float],
        *,
        learning_rate: float,
        steps_per_second: float,
        input_wait_fraction: float,
    ) -> None:
        """Writes the mean losses of an interval under their published names."""
        with self._writing(step):
            for name, value in losses.items():
                tf.summary.scalar(f"losses/train_{name}", value)
            tf.summary.scalar("learning_rate", learning_rate)
            tf.summary.scalar("steps_per_second", steps_per_second)
            tf.summary.scalar("input_wait_fraction", input_wait_fraction)

    def images(self, step: int, batch: Any, model: Any) -> None:
        """Draws predictions for the first images of a batch.

        Args:
            step: Global step.
            batch: A training batch.
            model: See `build_model`.
        """
        image = batch[keys.IMAGE][:_MAX_IMAGES]
        size = image.shape[1:3]
        outputs = resize_outputs(model(image, training=False), size)
        # Mask transformers keep theirs at the resolution of the decoder.
        logits = resize_bilinear(outputs[keys.SEMANTIC_LOGITS], size)
        predicted = tf.argmax(logits, axis=-1).numpy()
        pixels = image[..., :3].numpy()
        with self._writing(step):
            self._image("semantic_prediction", self._overlay(pixels, predicted))
            target = batch[keys.SEMANTIC_GT][:_MAX_IMAGES].numpy()
            self._image("semantic_label", self._overlay(pixels, target))
            if keys.CENTER_HEATMAP in outputs:
                heat = outputs[keys.CENTER_HEATMAP].numpy()
                self._image("center_prediction", np.clip(heat, 0, 1) * 255)
                target = batch[keys.INSTANCE_CENTER_GT][:_MAX_IMAGES].numpy()
                self._image("center_label", target[..., np.newaxis] * 255)

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        with readable_write_errors(self._folder, "summaries"):
            with self._writer.as_default(step=step):
                yield
            self._writer.flush()

    def _overlay(
        self, pixels: NDArray[np.float32], classes: NDArray[Any]
    ) -> NDArray[np.float32]:
        index = np.where(classes < self._num_classes, classes, self._num_classes)
        colored = self._palette[index]
        return (1 - _ALPHA) * pixels + _ALPHA * colored

    def _image(self, name: str, pixels: NDArray[np.float32]) -> None:
        tf.summary.image(name, pixels.astype(np.uint8), max_outputs=_MAX_IMAGES)
