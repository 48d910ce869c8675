"""The best checkpoint of a run, kept beside the latest ones."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.experiments import CONFIG_NAME
from deeplab2_edge.files import atomic_write, ensure_output_dir

BEST_FOLDER = "best"
_RECORD = "best.json"


@dataclass(frozen=True)
class Best:
    """Is the best evaluation of a run.

    Attributes:
        step: Global step.
        metric: What was compared, for example `PQ`.
        value: As a fraction.
    """

    step: int
    metric: str
    value: float


def read_best(output_dir: Path) -> Best | None:
    """Reads the record of a run, None if there is none yet.

    Raises:
        CheckpointError: If the record is damaged.
    """
    path = output_dir / BEST_FOLDER / _RECORD
    if not path.is_file():
        return None
    try:
        return Best(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: is not the record of a best checkpoint ({error}); remove it to "
            "start comparing anew"
        ) from None


def keep_if_best(checkpoint: str, output_dir: Path, candidate: Best) -> bool:
    """Copies a checkpoint to `best/` if none before was as good.

    The experiment goes with it, and the record is written last, so that a kill in
    between loses nothing.

    Args:
        checkpoint: Prefix.
        output_dir: Of the run.
        candidate: How good the checkpoint is.
    """
    before = read_best(output_dir)
    if (
        before is not None
        and before.metric == candidate.metric
        and before.value >= candidate.value
    ):
        return False
    folder = ensure_output_dir(output_dir / BEST_FOLDER)
    sources = [*Path(checkpoint).parent.glob(f"{Path(checkpoint).name}.*")]
    for source in [*sources, output_dir / CONFIG_NAME]:
        with atomic_write(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)
    with atomic_write(folder / _RECORD) as temporary:
        temporary.write_text(json.dumps(asdict(candidate), indent=1), encoding="utf-8")
    kept = {source.name for source in sources}
    for path in folder.glob("ckpt-*"):
        if path.name not in kept:
            path.unlink()
    return True
