"""Where a converted model comes from: what is written into it for later readers."""

import datetime
import glob
import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from deeplab2_edge.config import ExperimentOptions, format_config
from deeplab2_edge.errors import CheckpointError
from deeplab2_edge.version import __version__

_TOOLS = ("tensorflow", "tf-keras", "ai-edge-litert", "numpy")


def describe_provenance(
    config: ExperimentOptions, checkpoint: str | Path, prefix: str
) -> dict[str, Any]:
    """Collects checkpoint, configuration, time and tools.

    Only the names of files are kept: a path says more about its owner than about the
    model. `SOURCE_DATE_EPOCH` fixes the time, for builds that can be repeated bit by
    bit.

    Args:
        config: The experiment.
        checkpoint: What the user called the checkpoint.
        prefix: What it was resolved to.

    Raises:
        CheckpointError: If the checkpoint's files cannot be read.
    """
    is_name = Path(checkpoint).name == str(checkpoint)
    return {
        "checkpoint": str(checkpoint) if is_name else Path(prefix).name,
        "checkpoint_sha256": checkpoint_sha256(prefix),
        "config_sha256": hashlib.sha256(format_config(config).encode()).hexdigest(),
        "created": creation_time(),
        "tool_versions": tool_versions(),
    }


def creation_time() -> str:
    """Gives the time of now, or of `SOURCE_DATE_EPOCH`, as ISO 8601 in UTC."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = (
        datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        if epoch.isdigit() and len(epoch) < 12
        else datetime.datetime.now(datetime.timezone.utc)
    )
    return now.isoformat(timespec="seconds")


def tool_versions(*others: str) -> dict[str, str]:
    """Gives the versions of everything that takes part in a conversion.

    Args:
        others: Further distributions; what is not installed is left out.
    """
    versions = {"deeplab2-edge": __version__, "python": platform.python_version()}
    for distribution in (*_TOOLS, *others):
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu and the like
            continue
    return versions


def checkpoint_sha256(prefix: str) -> str:
    """Hashes the data files, which hold the values; the index may differ."""
    digest = hashlib.sha256()
    path = Path(prefix)
    try:
        for part in sorted(path.parent.glob(f"{glob.escape(path.name)}.data-*")):
            with part.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{prefix}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
