"""What is refused before a run begins, and before TensorFlow is imported."""

from pathlib import Path

from deeplab2_edge.config import ExperimentOptions, require_resolved, validate_config
from deeplab2_edge.datasets.folders import DESCRIPTION_NAME
from deeplab2_edge.datasets.registry import DatasetInfo, get_dataset, load_description
from deeplab2_edge.errors import ConfigError

_TRAINING = "train_dataset_options"
_EVALUATION = "eval_dataset_options"


def check_training(config: ExperimentOptions) -> DatasetInfo:
    """Refuses experiments that cannot be trained, as far as their text tells.

    Returns:
        The data set they are trained on.

    Raises:
        ConfigError: If a name is unknown, fields contradict each other, a placeholder
            is left, or the records say that they hold other classes.
    """
    return _check(config, _TRAINING, _TRAINING)


def check_evaluation(config: ExperimentOptions) -> DatasetInfo:
    """Refuses experiments that cannot be evaluated, as far as their text tells.

    Returns and raises what `check_training` does, for the evaluation data. Without a
    name of their own they have the classes of the training.
    """
    has_name = bool(config.eval_dataset_options.dataset)
    return _check(config, _EVALUATION, _EVALUATION if has_name else _TRAINING)


def _check(config: ExperimentOptions, section: str, named_in: str) -> DatasetInfo:
    info = get_dataset(require_resolved(getattr(config, named_in), "dataset"))
    validate_config(config, info, needs=("model_options", section))
    for pattern in require_resolved(getattr(config, section), "file_pattern"):
        description = Path(pattern).parent / DESCRIPTION_NAME
        if not description.is_file():
            continue
        found = load_description(description)
        difference = found.label_difference(info)
        if difference is not None:
            raise ConfigError(
                f"{named_in}.dataset is {info.name!r}, but {description} describes "
                f"{found.name!r} with other {difference}: "
                f"set {section}.dataset={description}"
            )
    return info
