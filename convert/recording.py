"""An engine that remembers what went through it."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from deeplab2_edge.model_file import ModelMetadata
from deeplab2_edge.runtime.engine import Engine

Arrays = dict[str, NDArray[Any]]


class Recorder:
    """Runs an engine and remembers inputs and outputs until they are taken.

    Args:
        engine: What runs.

    Attributes:
        last: Outputs of the last run.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inputs: list[Arrays] = []
        self._outputs: list[Arrays] = []
        self.is_integer = engine.is_integer
        self.last: Arrays = {}

    @property
    def metadata(self) -> ModelMetadata:
        """Of the model."""
        return self._engine.metadata

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Runs the engine."""
        self.last = self._engine.run(inputs)
        self._inputs.append(dict(inputs))
        self._outputs.append(self.last)
        return self.last

    def take_inputs(self) -> list[Arrays]:
        """Gives the inputs of all runs since the last call, and forgets the runs."""
        taken = self._inputs
        self._inputs, self._outputs = [], []
        return taken

    def take_outputs(self) -> list[Arrays]:
        """Gives the outputs of all runs since the last call, and forgets the runs."""
        taken = self._outputs
        self._inputs, self._outputs = [], []
        return taken
