"""How much memory a network may ask for."""

from dataclasses import dataclass

from deeplab2_edge.errors import ModelFileError


@dataclass(frozen=True)
class GraphLimits:
    """Bounds what a graph takes once it runs.

    Attributes:
        tensor_bytes: Of the largest tensor.
        activation_bytes: Of all tensors that are needed at the same time, constants
            not counted. MobileNetV3-Large in int8 at 1025x2049 takes 80 MB.
    """

    tensor_bytes: int = 2 << 30
    activation_bytes: int = 8 << 30

    def check_tensor(self, name: str, num_bytes: int) -> None:
        """Refuses a tensor that is too large.

        Raises:
            ModelFileError: If it is.
        """
        if num_bytes > self.tensor_bytes:
            raise ModelFileError(
                f"tensor {name!r} takes {_gib(num_bytes)}; a tensor may take "
                f"{_gib(self.tensor_bytes)}; if you trust the file, allow more: "
                "read_model_file(path, limits=GraphLimits(tensor_bytes=...))"
            )

    def check_activations(self, num_bytes: int) -> None:
        """Refuses a graph that takes too much memory.

        Raises:
            ModelFileError: If it does.
        """
        if num_bytes > self.activation_bytes:
            raise ModelFileError(
                f"the graph takes {_gib(num_bytes)} at once; it may take "
                f"{_gib(self.activation_bytes)}; if you trust the file, allow more: "
                "read_model_file(path, limits=GraphLimits(activation_bytes=...))"
            )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"
