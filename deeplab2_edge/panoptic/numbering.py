"""The numbers of tracks."""

from collections.abc import Container


def next_number(last: int, largest: int, taken: Container[int]) -> int | None:
    """Gives the number of a new track: the one after the last, in a circle.

    Args:
        last: The number given last, 0 if there was none.
        largest: After it, numbers start again at 1.
        taken: Numbers that are in use.

    Returns:
        1 to `largest`; None if all are in use.

    Example:
        >>> next_number(3, 4, taken={4, 1})
        2
    """
    for step in range(largest):
        number = (last + step) % largest + 1
        if number not in taken:
            return number
    return None
