"""Image sizes that a network can take: k * output_stride + 1 for each side.

Then the corners of the feature maps of all strides coincide.
"""

from collections.abc import Sequence


def fits_stride(size: Sequence[int], output_stride: int) -> bool:
    """Tells whether each side is k * output_stride + 1, with k at least 1."""
    return all(s > output_stride and (s - 1) % output_stride == 0 for s in size)


def nearest_sizes(size: Sequence[int], output_stride: int) -> list[list[int]]:
    """Returns the nearest sizes that fit: the next smaller one and the next larger.

    A side that fits stays. There is one size only where nothing smaller fits.

    Example:
        >>> nearest_sizes((1024, 2048), 16)
        [[1009, 2033], [1025, 2049]]
    """
    smaller = [(side - 1) // output_stride * output_stride + 1 for side in size]
    larger = [-(-(side - 1) // output_stride) * output_stride + 1 for side in size]
    least = output_stride + 1
    near = [[max(side, least) for side in sides] for sides in (smaller, larger)]
    return near[:1] if near[0] == near[1] else near


def expected_size(size: Sequence[int], output_stride: int, *, as_option: bool) -> str:
    """Says what would be right for a size that does not fit.

    Args:
        size: (height, width).
        output_stride: Of the backbone.
        as_option: Whether to write `257x513`, as on a command line, instead of
            `[257, 513]`.
    """
    near = " and ".join(
        "x".join(map(str, sides)) if as_option else str(sides)
        for sides in nearest_sizes(size, output_stride)
    )
    return (
        f"k * output_stride + 1 for each side (output_stride is {output_stride}). "
        f"Nearest that fits: {near}"
    )
