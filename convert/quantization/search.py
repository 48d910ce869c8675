"""All that static quantization can do with one network, from least to most.

The network is traced, converted to float32 and measured once. What follows, quantiles,
engines, mixed precision and its blocks, takes a fraction of a second each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from deeplab2_edge.convert.modes import INT8, INT8_MIXED, TFLITE
from deeplab2_edge.convert.quantization.calibration import QUANTILE, Inputs
from deeplab2_edge.convert.quantization.ladder import KEPT_BLOCKS, Attempt, Rung
from deeplab2_edge.convert.quantization.quantile import QuantileChoice, choose_quantile
from deeplab2_edge.convert.quantization.sensitivity import (
    Sensitivity,
    measure_sensitivity,
)
from deeplab2_edge.convert.tflite import ConvertedGraph, Quantizable

Measure = Callable[[str, ConvertedGraph], Attempt]


@dataclass(frozen=True, eq=False)
class StaticSearch:
    """Is a measured network and what is asked of its quantization.

    Attributes:
        quantizable: The network.
        validation: Names and inputs of images that were not calibrated with; quantile
            and blocks are chosen by them.
        quantization: The mode to begin with, `int8` or `int8-mixed`.
        quantizer: One of `modes.QUANTIZERS`.
        quantile: Share of the calibration images whose range is covered; None chooses
            it by the validation images.
        may_mix: Whether the device can run a file that is partly float32.
        quiet: Whether to show no progress.
    """

    quantizable: Quantizable
    validation: Sequence[tuple[str, Inputs]]
    quantization: str = INT8
    quantizer: str = TFLITE
    quantile: float | None = QUANTILE
    may_mix: bool = True
    quiet: bool = False

    @cached_property
    def choice(self) -> QuantileChoice:
        """The quantile that is best on the validation images."""
        return choose_quantile(
            self.quantizable,
            self.validation,
            quantization=self.quantization,
            quantizer=self.quantizer,
        )

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """What the blocks of the network cost, beyond the rules of `int8-mixed`."""
        return measure_sensitivity(
            self.quantizable,
            self.validation,
            quantization=INT8_MIXED,
            quantile=self._quantile,
            quiet=self.quiet,
        )

    def convert(
        self, quantization: str | None = None, keep_float: Sequence[str] = ()
    ) -> ConvertedGraph:
        """Quantizes, by default as asked.

        Args:
            quantization: `int8` or `int8-mixed`.
            keep_float: Paths of layers that stay in float32.
        """
        return self._convert(
            quantization or self.quantization, self._quantile, keep_float
        )

    def rungs(self, measure: Measure) -> Iterator[Rung]:
        """Gives ways to quantize, the cheapest on a device first, see `ladder`.

        Args:
            measure: Says of a name and a graph what it is worth.
        """

        def rung(name: str, convert: Callable[[], ConvertedGraph]) -> Rung:
            return Rung(name, lambda: measure(name, convert()))

        first = self.quantization
        yield rung(first, self.convert)
        quantile = self._quantile
        if self.quantile is not None and self.choice.quantile != quantile:
            quantile = self.choice.quantile
            yield rung(
                f"{first}, quantile {quantile:g}",
                lambda: self._convert(first, quantile, ()),
            )
        if not self.may_mix:
            return
        if first != INT8_MIXED:
            yield rung(INT8_MIXED, lambda: self._convert(INT8_MIXED, quantile, ()))
        for count in KEPT_BLOCKS:
            worst = self.sensitivity.worst(count)
            if len(worst) == count and count < len(self.sensitivity.layers):
                yield rung(
                    f"{INT8_MIXED}, worst {count} in float",
                    partial(self._convert, INT8_MIXED, quantile, worst),
                )

    @property
    def _quantile(self) -> float:
        return self.choice.quantile if self.quantile is None else self.quantile

    def _convert(
        self, quantization: str, quantile: float, keep_float: Sequence[str]
    ) -> ConvertedGraph:
        return self.quantizable.quantize(
            quantization,
            quantile=quantile,
            keep_float=keep_float,
            quantizer=self.quantizer,
        )
