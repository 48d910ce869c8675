"""What the dual-path transformers of a network are like."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DualPathOptions:
    """Describes the transformers of a network.

    Attributes:
        num_heads: Heads of both attentions.
        bottleneck_expansion: Width of both paths over the base width.
        key_expansion: Width of queries and of keys over the base width.
        value_expansion: Width of values over the base width.
        feed_forward_network_channels: Inner width of the memory's two-layer network.
        use_memory_self_attention: Whether memory looks at memory, too, and not at
            pixels alone.
        use_pixel2memory_feedback_attention: Whether pixels look at memory. Without it
            pixels pass unchanged.
        transformer_activation: What makes weights of logits: `"softmax"` over the
            keys, or `"sigmoid"` of each.

    Raises:
        ValueError: If the activation is unknown or there are no heads.
    """

    num_heads: int = 8
    bottleneck_expansion: int = 2
    key_expansion: int = 1
    value_expansion: int = 2
    feed_forward_network_channels: int = 2048
    use_memory_self_attention: bool = True
    use_pixel2memory_feedback_attention: bool = True
    transformer_activation: str = "softmax"

    def __post_init__(self) -> None:
        if self.transformer_activation not in ("softmax", "sigmoid"):
            raise ValueError(
                f"transformer_activation is {self.transformer_activation!r}; "
                "must be 'softmax' or 'sigmoid'"
            )
        if self.num_heads < 1:
            raise ValueError(f"num_heads is {self.num_heads}; must be at least 1")
