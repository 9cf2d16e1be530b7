"""Which matrix, range, primaries and transfer a video's numbers mean, and how FFmpeg's scaler is told."""

from dataclasses import dataclass

UNSPECIFIED = 2  # of matrix, primaries and transfer; 0 of range (ITU-T H.273 numbering, as FFmpeg uses it)
LIMITED, FULL = 1, 2
BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020_NCL = 1, 4, 5, 6, 7, 9
SRGB_TRANSFER = 13

# H.273 matrix -> the scaler's number for it (SWS_CS_...); the two names of BT.601 share one set of coefficients.
SCALER_MATRIX = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020_NCL: 9}
HDR_TRANSFERS = {16: "PQ (HDR10, Dolby Vision)", 18: "HLG"}
LINES_OF_STANDARD_DEFINITION = 576


@dataclass(frozen=True)
class ColorTags:
    """What the numbers of a video mean, in the numbering of ITU-T H.273 (range: 1 limited, 2 full); nothing is left
    unspecified but
    primaries and transfer, which are only carried."""

    range: int
    matrix: int
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


SRGB = ColorTags(range=LIMITED, matrix=BT709, primaries=BT709, transfer=SRGB_TRANSFER)


def resolve_tags(*, range: int, matrix: int, primaries: int, transfer: int, lines: int, is_rgb: bool) -> ColorTags:
    """The tags of a stream with the gaps filled: unspecified range is limited, an unspecified matrix is BT.601 up to
    576 lines, else BT.709.

    RGB sources have no matrix; they get the tags that a video made of them should carry.
    """
    if is_rgb:
        return ColorTags(
            LIMITED,
            BT709,
            primaries if primaries not in (0, UNSPECIFIED) else SRGB.primaries,
            transfer if transfer not in (0, UNSPECIFIED) else SRGB.transfer,
        )
    guess = SMPTE170M if lines <= LINES_OF_STANDARD_DEFINITION else BT709
    return ColorTags(
        range if range in (LIMITED, FULL) else LIMITED,
        matrix if matrix in SCALER_MATRIX else guess,
        primaries or UNSPECIFIED,
        transfer or UNSPECIFIED,
    )
