"""Experiment configurations: read, changed, checked and written.

    config = load_config("recipe.textproto",
                         overrides={"train_dataset_options.file_pattern": ["data/*"]})
    config.model_options.backbone.name

The schema is described in `deeplab2_edge.config.schema`.
"""

import os
from collections.abc import Mapping
from typing import Any

from deeplab2_edge.config.overrides import apply_overrides, parse_override
from deeplab2_edge.config.placeholders import require_resolved, unresolved_placeholders
from deeplab2_edge.config.schema import (
    AugmentationOptions,
    BackboneOptions,
    DatasetOptions,
    DecoderOptions,
    DeeplabV3Options,
    DeeplabV3PlusOptions,
    EvaluatorOptions,
    ExperimentOptions,
    HeadOptions,
    InstanceOptions,
    LossOptions,
    LowLevelOptions,
    MaskwisePostProcessingOptions,
    MaXDeepLabOptions,
    Message,
    ModelOptions,
    MotionDeepLabOptions,
    PanopticCopyPasteOptions,
    PanopticDeeplabOptions,
    SingleLossOptions,
    SolverOptions,
    TrainerOptions,
)
from deeplab2_edge.config.textformat import (
    format_config,
    parse_config,
    parse_message,
    read_text,
)
from deeplab2_edge.config.validate import validate_config

__all__ = [
    "AugmentationOptions",
    "BackboneOptions",
    "DatasetOptions",
    "DecoderOptions",
    "DeeplabV3Options",
    "DeeplabV3PlusOptions",
    "EvaluatorOptions",
    "ExperimentOptions",
    "HeadOptions",
    "InstanceOptions",
    "LossOptions",
    "LowLevelOptions",
    "MaXDeepLabOptions",
    "MaskwisePostProcessingOptions",
    "Message",
    "ModelOptions",
    "MotionDeepLabOptions",
    "PanopticCopyPasteOptions",
    "PanopticDeeplabOptions",
    "SingleLossOptions",
    "SolverOptions",
    "TrainerOptions",
    "apply_overrides",
    "format_config",
    "load_config",
    "parse_config",
    "parse_message",
    "parse_override",
    "require_resolved",
    "unresolved_placeholders",
    "validate_config",
]


def load_config(
    path: str | os.PathLike[str], *, overrides: Mapping[str, Any] | None = None
) -> ExperimentOptions:
    """Reads an experiment from a text-format file.

    Args:
        path: The file.
        overrides: Values by dotted path, see `apply_overrides`.

    Raises:
        ConfigError: If the file cannot be read, breaks the format or the schema, or
            an override does not fit. Cross-field checks are `validate_config`.
    """
    config = parse_config(read_text(path), source=os.fspath(path))
    return apply_overrides(config, overrides or {})
