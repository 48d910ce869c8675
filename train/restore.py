"""Where a training starts: what of an initial checkpoint is taken.

The published rules:

1. A folder means its latest checkpoint.
2. A checkpoint with keys `backbone/_encoder/...` is another trainer's: it gives the
   encoder and nothing else.
3. Any other gives all items of the model but the excluded ones; optimizer and step are
   never taken.
4. `restore_semantic_last_layer_from_initial_checkpoint: false` excludes the semantic
   last layer (not the mask classifier of MaX-DeepLab).
5. `restore_instance_last_layer_from_initial_checkpoint: false` excludes the last layers
   for centers, offsets and motion (not those of ViP-DeepLab's next frame and depth).
6. What the checkpoint lacks keeps its initial value, but one variable must match, and
   one that matches in name must match in shape.

The first two are those of `checkpoint_files`.
"""

from typing import Any

from deeplab2_edge.checkpoints import LoadReport, load_weights
from deeplab2_edge.config import ModelOptions, require_resolved

_SEMANTIC_LAST_LAYER = ("semantic_last_layer",)
_INSTANCE_LAST_LAYERS = (
    "motion_regression_head_last_layer",
    "instance_regression_head_last_layer",
    "instance_center_head_last_layer",
)


def excluded_items(options: ModelOptions) -> tuple[str, ...]:
    """Returns the root items that an initial checkpoint does not give."""
    items: tuple[str, ...] = ()
    if not options.restore_semantic_last_layer_from_initial_checkpoint:
        items += _SEMANTIC_LAST_LAYER
    if not options.restore_instance_last_layer_from_initial_checkpoint:
        items += _INSTANCE_LAST_LAYERS
    return items


def restore_initial_checkpoint(model: Any, options: ModelOptions) -> LoadReport | None:
    """Fills a model from `initial_checkpoint`, by the rules above.

    Args:
        model: A model of `build_model`.
        options: Name the checkpoint and what to leave out.

    Returns:
        What was loaded, None if no checkpoint is named.

    Raises:
        ConfigError: If the name is a placeholder.
        CheckpointError: If the checkpoint is missing, damaged, or does not fit.
    """
    location = require_resolved(options, "initial_checkpoint")
    if not location:
        return None
    return load_weights(
        model, location, skip=excluded_items(options), allow_partial=True
    )
