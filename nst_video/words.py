"""Words for people that several modules say."""


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "frame"), counted(0, "frame"), counted(1200, "frame")
    ('1 frame', '0 frames', '1,200 frames')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"
