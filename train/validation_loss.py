"""The losses of a network on the evaluation data, and pictures of its predictions."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.checkpoints import load_weights
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.errors import ConfigError
from deeplab2_edge.models import build_model, resize_outputs
from deeplab2_edge.models.engine import dataset_of
from deeplab2_edge.optional import require
from deeplab2_edge.progress import progress
from deeplab2_edge.train.data import evaluation_dataset, readable_errors
from deeplab2_edge.train.losses import build_loss
from deeplab2_edge.train.run_data import has_depth, has_instances
from deeplab2_edge.train.summaries import SummaryWriter

tf: Any = require("tensorflow", extra="train")

_MAX_PICTURES = 2
_PICTURED = (keys.IMAGE, keys.SEMANTIC_GT, keys.INSTANCE_CENTER_GT)


class ValidationLoss:
    """Computes the losses of checkpoints on the evaluation data of their experiment.

    Images are brought to the evaluation crop without augmentation, as in the published
    evaluation; each counts alike. Batch norm uses its stored statistics.

    Args:
        config: The experiment.

    Raises:
        ConfigError: If the evaluation data has no labels, no crop, or the network needs
            its own results for the frame before.
        DataError: If the records cannot be read or lack what the losses compare with.
    """

    def __init__(self, config: ExperimentOptions) -> None:
        options = config.eval_dataset_options
        if config.model_options.motion_deeplab is not None:
            raise ConfigError(
                "Motion-DeepLab looks at its own centers of the frame before, which "
                "single samples do not have"
            )
        if not options.decode_groundtruth_label:
            raise ConfigError(
                "eval_dataset_options.decode_groundtruth_label is false, and losses "
                "compare with labels"
            )
        self._info = dataset_of(config)
        self._limit = config.evaluator_options.eval_steps
        self._batches = evaluation_dataset(
            options,
            self._info,
            has_instances=has_instances(config),
            has_depth=has_depth(config),
        )
        self._model = build_model(config, input_size=options.crop_size)
        self._loss = build_loss(
            config.trainer_options.loss_options,
            self._info,
            model_options=config.model_options,
            # Pixels that are drawn are the same for every checkpoint.
            seed_source=lambda: tf.constant(0, tf.int64),
        )
        self._compute = tf.function(self._losses_of, reduce_retracing=True)

    def measure(self, checkpoint: str, *, quiet: bool = False) -> dict[str, float]:
        """Returns the mean of every term of the loss, and of their sum.

        Args:
            checkpoint: Prefix.
            quiet: Report no progress.

        Raises:
            CheckpointError: If the checkpoint does not fit the experiment.
            DataError: If a record is damaged.
        """
        load_weights(self._model, checkpoint)
        batches = self._batches.take(self._limit)
        total = int(batches.cardinality())
        sums: dict[str, Any] = {}
        count = 0
        with readable_errors():
            for batch in progress(
                batches, total=total, label="validation loss", quiet=quiet
            ):
                values = self._compute({n: batch[n] for n in self._needed(batch)})
                sums = {n: sums.get(n, 0.0) + v for n, v in values.items()}
                count += 1
        return {name: float(value) / count for name, value in sums.items()}

    def draw(self, folder: Path, step: int) -> None:
        """Writes pictures of the first images, as of the weights measured last."""
        first = [*itertools.islice(iter(self._batches), _MAX_PICTURES)]
        pictured = {
            name: tf.concat([batch[name] for batch in first], axis=0)
            for name in _PICTURED
            if name in first[0]
        }
        with SummaryWriter(folder, self._info) as summaries:
            summaries.images(step, pictured, self._model)

    def _needed(self, batch: Mapping[str, Any]) -> list[str]:
        """Leaves out what has the size of the stored image: each would be traced."""
        height, width = self._model.input.shape[1:3]
        return [n for n, v in batch.items() if v.shape[1:3] == (height, width)]

    def _losses_of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        size = tuple(self._model.input.shape[1:3])
        outputs = resize_outputs(self._model(batch[keys.IMAGE], training=False), size)
        return {n: tf.reduce_mean(v) for n, v in self._loss(outputs, batch).items()}
