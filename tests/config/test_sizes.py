import pytest

from deeplab2_edge.config.sizes import expected_size, fits_stride, nearest_sizes


@pytest.mark.parametrize(
    ("size", "stride", "near"),
    [
        ((1024, 2048), 16, [[1009, 2033], [1025, 2049]]),
        ((1025, 2048), 32, [[1025, 2017], [1025, 2049]]),
        ((1025, 2049), 32, [[1025, 2049]]),
        ((2, 40), 16, [[17, 33], [17, 49]]),
        ((16, 1), 16, [[17, 17]]),
        ((0, -5), 8, [[9, 9]]),
    ],
)
def test_the_nearest_sizes_are_below_and_above(
    size: tuple[int, int], stride: int, near: list[list[int]]
) -> None:
    assert nearest_sizes(size, stride) == near
    assert all(fits_stride(sides, stride) for sides in near)
    assert fits_stride(size, stride) is (near == [list(size)])


def test_what_is_expected_can_be_typed() -> None:
    assert expected_size((256, 512), 16, as_option=True).endswith(
        "(output_stride is 16). Nearest that fits: 241x497 and 257x513"
    )
    assert expected_size((256, 512), 16, as_option=False).endswith(
        "Nearest that fits: [241, 497] and [257, 513]"
    )
