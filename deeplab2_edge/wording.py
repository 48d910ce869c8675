"""Words of messages that depend on a number."""


def counted(count: int, noun: str) -> str:
    """Writes a count with its noun, whose plural ends in s.

    Example:
        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
