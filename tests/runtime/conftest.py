"""What tests of the runtime share."""

import pytest

from deeplab2_edge.errors import MissingExtraError
from deeplab2_edge.runtime import native


@pytest.fixture(scope="session")
def native_library() -> None:
    """Skips tests of the native core where it cannot be built."""
    try:
        native.load_core()
    except MissingExtraError as error:
        pytest.skip(str(error))
