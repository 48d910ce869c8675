"""What leaves a network, as it leaves it: integers stay integers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RawHead:
    """Is one output of a network, without batch.

    A quantized head is a quarter of its real values, which whoever merges can make one
    by one.

    Attributes:
        values: float32, or int8, uint8 or int16 steps, or int32 ids.
        scale: Of one step; 0.0 if the values are real, or ids.
        zero_point: The step that means 0.
    """

    values: NDArray[Any]
    scale: float = 0.0
    zero_point: int = 0

    def real(self) -> NDArray[Any]:
        """Gives float32 values, `(values - zero_point) * scale`; ids as int32."""
        if self.scale:
            real: NDArray[np.float32] = self.values.astype(np.float32)
            real -= np.float32(self.zero_point)
            real *= np.float32(self.scale)
            return real
        is_id = np.issubdtype(self.values.dtype, np.integer)
        return self.values.astype(np.int32 if is_id else np.float32, copy=False)
