"""What engines of TFLite files share: images and states in, heads out."""

import abc
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.model_file import ModelMetadata, is_picture
from deeplab2_edge.runtime.engine import with_plateaus
from deeplab2_edge.runtime.heads import RawHead
from deeplab2_edge.runtime.preprocess import PlacedImage, write_pixels
from deeplab2_edge.runtime.tensors import TensorInfo, input_table, quantized


class GraphEngine(abc.ABC):
    """Runs a graph with one set of buffers.

    Calls from several threads are safe but wait for each other.

    Args:
        metadata: Of the model.
        inputs: Tensors of the graph by the names of the metadata.
        outputs: The same; may be more than the metadata names.

    Attributes:
        metadata: Describes the model.
    """

    def __init__(
        self,
        metadata: ModelMetadata,
        inputs: Mapping[str, TensorInfo],
        outputs: Mapping[str, TensorInfo],
    ) -> None:
        self._lock = threading.Lock()
        self._inputs = inputs
        self._outputs = outputs
        self._tables = {
            name: input_table(spec, inputs[name])
            for name, spec in metadata.inputs.items()
            if is_picture(name)
        }
        self.metadata = with_plateaus(metadata, is_integer=self.is_integer)

    @property
    def is_integer(self) -> bool:
        """Whether the center heatmap leaves the network as integers."""
        heatmap = self._outputs.get(keys.CENTER_HEATMAP)
        return heatmap is not None and heatmap.scale != 0

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the network; see `engine.Engine`."""
        return {name: head.real() for name, head in self.run_raw(inputs).items()}

    def run_raw(
        self, inputs: Mapping[str, NDArray[Any] | PlacedImage]
    ) -> dict[str, RawHead]:
        """Runs the network; see `engine.RawEngine`."""
        self.metadata.check_inputs(inputs)
        with self._lock:
            for name, values in inputs.items():
                self._fill(name, values)
            self._compute()
            return {
                name: RawHead(self._output(name), tensor.scale, tensor.zero_point)
                for name, tensor in self._outputs.items()
            }

    def _fill(self, name: str, values: NDArray[Any] | PlacedImage) -> None:
        buffer = self._input(name)
        if isinstance(values, PlacedImage):
            values.write(buffer, self._tables[name])
        elif name not in self._tables:
            np.copyto(buffer, quantized(values, self._inputs[name]))
        else:
            write_pixels(values, buffer, self._tables[name])

    @abc.abstractmethod
    def _input(self, name: str) -> NDArray[Any]:
        """Gives what an input is written into, without batch; gone before computing."""

    @abc.abstractmethod
    def _compute(self) -> None:
        """Runs the graph on what its inputs hold."""

    @abc.abstractmethod
    def _output(self, name: str) -> NDArray[Any]:
        """Gives an output without batch, in memory of its own."""
