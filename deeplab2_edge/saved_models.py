"""SavedModels of TensorFlow: recognized and named, never loaded."""

from pathlib import Path

FILE_NAME = "saved_model.pb"
# Stands where a model file or a checkpoint was expected.
NOTICE = (
    "a SavedModel, which TensorFlow and its Serving run by themselves; give the "
    "checkpoint it was made of, or a file that `deeplab2-edge convert` makes of that"
)


def is_saved_model(path: Path) -> bool:
    """Says whether a path is the folder of a SavedModel, or the file in it."""
    return (path / FILE_NAME).is_file() or (path.name == FILE_NAME and path.is_file())
