"""Which matrix, range, primaries and transfer a video's numbers mean, and how FFmpeg's scaler is told."""

from dataclasses import dataclass

UNSPECIFIED = 2  # of matrix, primaries and transfer; 0 of range (ITU-T H.273 numbering, as FFmpeg uses it)
LIMITED, FULL = 1, 2
BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020_NCL = 1, 4, 5, 6, 7, 9
SRGB_TRANSFER = 13

# H.273 matrix -> the scaler's number for it (SWS_CS_...); the two names of BT.601 share one set of coefficients.
SCALER_MATRIX = {BT709: 1, FCC: 4, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020_NCL: 9}
HDR_TRANSFERS = {16: "PQ (HDR10, Dolby Vision)", 18: "HLG"}
LARGEST_STANDARD_DEFINITION = (1279, 576)  # pixels of the longer and the shorter side; wide films have few lines


@dataclass(frozen=True)
class ColorTags:
    """What the numbers of a video mean, in the numbering of ITU-T H.273 (range: 1 limited, 2 full).

    Range and matrix are always known; primaries and transfer may be unspecified, they are only carried.
    """

    range: int
    matrix: int
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


SRGB = ColorTags(range=LIMITED, matrix=BT709, primaries=BT709, transfer=SRGB_TRANSFER)


def resolve_tags(found: ColorTags, size: tuple[int, int], *, is_rgb: bool) -> ColorTags:
    """The tags of a stream of `size` pixels with the gaps filled: range limited; matrix BT.601 for standard definition,
    else BT.709.

    RGB sources have no matrix; they get the tags that a video made of them should carry.
    """
    if is_rgb:
        said = UNSPECIFIED not in (found.primaries or UNSPECIFIED, found.transfer or UNSPECIFIED)
        return ColorTags(LIMITED, BT709, found.primaries, found.transfer) if said else SRGB
    long_side, short_side = LARGEST_STANDARD_DEFINITION
    is_standard = max(size) <= long_side and min(size) <= short_side
    return ColorTags(
        range=found.range if found.range in (LIMITED, FULL) else LIMITED,
        matrix=found.matrix if found.matrix in SCALER_MATRIX else SMPTE170M if is_standard else BT709,
        primaries=found.primaries or UNSPECIFIED,
        transfer=found.transfer or UNSPECIFIED,
    )
