"""What all layers of one model share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerDefaults:
    """Holds what is decided once for a whole model.

    Attributes:
        batch_norm_momentum: Momentum of the moving statistics.
        batch_norm_epsilon: Added to the variance; 1e-5 in some published configs.
        synchronize_batch_norm: Average batch statistics over the replicas of a
            distribution strategy.
        hard_swish: `"fused"` for `x * relu6(x + 3) / 6`, which LiteRT turns into one
            HARD_SWISH op; `"decomposed"` for `(x / 6) * relu6(x + 3)`, which it keeps
            as ADD and MUL. The values are the same; see `activations`.
        axial: Form of attention at inference, in all blocks and transformers:
            `"einsum"` as in training, or `"builtin"`, the fewest ops, with everything
            folded that can be; see `axial_inference`. The values are the same.
        resize: `"native"`, one op for bilinear resizing; `"matmul"`, two products
            with constant matrices; or `"spread"`, that op, but a product where it
            would spread a single pixel. See `layers.resize`; the values are the same.
        pool: `"native"`, AVERAGE_POOL_2D where the ASPP pools a window, or
            `"separable"`, two depthwise convolutions; see `layers.pooling`. The values
            are the same.
        recompute: Keep only the inputs of each residual block during training and
            compute the rest again for the gradient: less memory, a third more time.
        position_stretch: Extent of the images the weights were trained on over that
            of the images at hand, (height, width), to stretch relative positions of
            axial attention from one to the other. None: distances keep their meaning
            in pixels.
    """

    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 0.001
    synchronize_batch_norm: bool = False
    hard_swish: str = "fused"
    axial: str = "einsum"
    resize: str = "native"
    pool: str = "native"
    recompute: bool = False
    position_stretch: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.axial not in ("einsum", "builtin"):
            raise ValueError(f"axial is {self.axial!r}; must be 'einsum' or 'builtin'")
