"""The experiment as it is kept beside its results."""

from pathlib import Path
from typing import Any

from deeplab2_edge import assets
from deeplab2_edge.config import ExperimentOptions, apply_overrides, format_config
from deeplab2_edge.datasets.registry import dataset_names
from deeplab2_edge.experiments import CONFIG_NAME
from deeplab2_edge.files import atomic_write


def remember_config(config: ExperimentOptions, output_dir: Path) -> None:
    """Writes the experiment beside its results, where other commands look for it."""
    with atomic_write(output_dir / CONFIG_NAME) as temporary:
        text = format_config(_with_absolute_paths(config))
        temporary.write_text(text, encoding="utf-8")


def _with_absolute_paths(config: ExperimentOptions) -> ExperimentOptions:
    """Makes the paths of an experiment hold in any working folder."""
    changes: dict[str, Any] = {}
    for part in ("train_dataset_options", "eval_dataset_options"):
        options = getattr(config, part)
        name = options.dataset
        if name not in dataset_names() and Path(name).is_file():
            changes[f"{part}.dataset"] = str(Path(name).absolute())
        if options.has("file_pattern"):
            changes[f"{part}.file_pattern"] = [
                pattern if "${" in pattern else str(Path(pattern).absolute())
                for pattern in options.file_pattern
            ]
    initial = config.model_options.initial_checkpoint
    is_path = Path(initial).exists() or Path(f"{initial}.index").is_file()
    if initial and initial != assets.DEMO_CHECKPOINT and is_path:
        changes["model_options.initial_checkpoint"] = str(Path(initial).absolute())
    return apply_overrides(config, changes)
