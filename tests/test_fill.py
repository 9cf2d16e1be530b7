"""Fill: the hole and nothing else is painted, and changes as what it resembles was changed."""

import pytest
import torch
from tiny import picture

from nst_video.flow import fill
from nst_video.flow.fill import paint_revealed

HEIGHT, WIDTH = 48, 64


def hole_at(rows, columns, height=HEIGHT, width=WIDTH):
    """1 in the rectangle, 0 elsewhere: (1, 1, height, width)."""
    hole = torch.zeros(1, 1, height, width)
    hole[..., rows, columns] = 1
    return hole


HOLE = hole_at(slice(16, 32), slice(20, 44))


def test_without_a_hole_the_frame_comes_back():
    image = picture(0)
    found = paint_revealed(image, torch.zeros_like(HOLE), picture(1), picture(2))
    assert torch.equal(found, image)


def test_a_hole_that_is_hardly_one_is_none():
    image = picture(0)
    assert torch.equal(paint_revealed(image, 0.25 * HOLE, picture(1), picture(2)), image)


def test_a_hole_in_a_frame_like_the_last_is_painted_as_that_was():
    content, painted = picture(0), picture(1)
    found = paint_revealed(content, HOLE, content, painted)
    inside = HOLE.expand_as(found) > 0
    torch.testing.assert_close(found[inside], painted[inside], rtol=0, atol=1e-5)


def test_a_picture_that_is_all_hole_is_painted_whole():
    content, painted = picture(0), picture(1)
    found = paint_revealed(content, torch.ones_like(HOLE), content, painted)
    torch.testing.assert_close(found, painted, rtol=0, atol=1e-5)


def test_windows_that_come_again_change_nothing():
    image, content, painted = picture(0), picture(1), picture(2)
    numbers = torch.arange(20, 50)
    once, again = (
        fill._repainted(image, content, painted, wanted) for wanted in (numbers, fill.in_few_lengths(numbers, 1000))
    )
    torch.testing.assert_close(once, again, rtol=0, atol=1e-6)
    assert (once - image).abs().max() > 0.1


@pytest.mark.parametrize(
    ("count", "most", "length"), [(1, 4225, 64), (64, 4225, 64), (65, 4225, 1024), (2000, 4225, 4225), (40, 50, 50)]
)
def test_windows_are_painted_in_few_lengths(count, most, length):
    numbers = torch.arange(count) + 7
    found = fill.in_few_lengths(numbers, most)
    assert torch.equal(found[:count], numbers)
    assert set(found[count:].tolist()) <= {6 + count}
    assert len(found) == length


def test_nothing_is_painted_far_from_the_hole():
    image = picture(0)
    found = paint_revealed(image, HOLE, picture(1), picture(2))
    near = torch.zeros_like(HOLE, dtype=torch.bool)
    near[..., 1:47, 5:59] = True  # a window of 16 pixels that touches the hole reaches this far
    assert torch.equal(found[~near.expand_as(found)], image[~near.expand_as(image)])
    assert not torch.equal(found, image)


def test_a_revealed_place_is_painted_like_what_it_resembles():
    # Red and blue halves with fine structure, painted yellow and green; a hole shows blue where red was expected.
    content = 0.1 * picture(0)
    content[:, 0, :, :32] += 0.8
    content[:, 2, :, 32:] += 0.8
    painted = content.clone()
    painted[:, 1, :, :32] += 0.6
    painted[:, 1, :, 32:] += 0.3
    image = content.clone()
    image[..., 16:32, 4:20] = content[..., 16:32, 44:60]
    found = paint_revealed(image, hole_at(slice(16, 32), slice(4, 20)), content, painted)
    change = (found - image)[..., 20:28, 8:16]
    assert change[:, 1].mean().item() == pytest.approx(0.3, abs=0.05)
    assert change[:, [0, 2]].abs().max() < 1e-5


def test_a_hole_keeps_the_new_frames_own_edges():
    content = torch.full((1, 3, HEIGHT, WIDTH), 0.5)
    image = content.clone()
    image[..., 24:, :] = 0.3
    found = paint_revealed(image, HOLE, content, content + 0.1)
    inside = HOLE.expand_as(found) > 0
    torch.testing.assert_close(found[inside], (image + 0.1)[inside], rtol=0, atol=1e-5)


def test_values_stay_between_0_and_1():
    content = picture(0)
    for painted in (content + 0.8, content - 0.8):
        found = paint_revealed(content, HOLE, content, painted)
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (37, 21), (45, 63), (5, 90), (64, 47)])
def test_any_size_is_painted_to_its_borders(size):
    content, painted = picture(0, *size), picture(1, *size)
    found = paint_revealed(content, torch.ones(1, 1, *size), content, painted)
    torch.testing.assert_close(found, painted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(395, 701), (512, 384)])
def test_a_large_picture_is_matched_small_and_painted_at_its_own_size(size):
    content, painted = picture(0, *size, grain=6.0), picture(1, *size, grain=1.0)
    hole = hole_at(slice(100, 180), slice(200, 300), *size)
    found = paint_revealed(content, hole, content, painted)
    inside = hole.expand_as(found) > 0
    torch.testing.assert_close(found[inside], painted[inside], rtol=0, atol=1e-5)
    assert torch.equal(found[..., :40, :], content[..., :40, :])


def test_lanes_are_painted_each_from_its_own_past():
    images, contents, painteds = (torch.cat([picture(seed), picture(seed + 1)]) for seed in (0, 10, 20))
    holes = torch.cat([HOLE, torch.zeros_like(HOLE)])
    both = paint_revealed(images, holes, contents, painteds)
    assert torch.equal(both[:1], paint_revealed(images[:1], HOLE, contents[:1], painteds[:1]))
    assert torch.equal(both[1], images[1])


def test_the_callers_tensors_stay_as_they_are():
    given = (picture(0), HOLE.clone(), picture(1), picture(2))
    before = [part.clone() for part in given]
    paint_revealed(*given)
    assert all(torch.equal(part, old) for part, old in zip(given, before, strict=True))


@pytest.mark.parametrize(("size", "factor"), [((40, 56), 1), ((37, 61), 1), ((90, 130), 2), ((91, 133), 3)])
def test_windows_are_added_up_as_fold_adds_them(size, factor):
    generator = torch.Generator().manual_seed(3)
    image = torch.zeros(1, 3, *size)
    windows = fill._windows(image, factor)
    count, side = windows.shape[0] * windows.shape[1], windows.shape[-1]
    wanted = torch.randperm(count, generator=generator)[: count // 3]
    values = torch.rand(len(wanted), 4, side * side, generator=generator)
    columns = torch.zeros(count, 4 * side * side)
    columns[wanted] = values.flatten(1)
    left, right, top, bottom = fill._margins(size, factor)
    padded = (size[0] + top + bottom, size[1] + left + right)
    whole = torch.nn.functional.fold(columns.T[None], padded, side, stride=fill._STRIDE * factor)
    found = fill._overlap(values, wanted, image, factor)
    torch.testing.assert_close(found, whole[..., top : top + size[0], left : left + size[1]])


@pytest.mark.parametrize("size", [(48, 64), (37, 50)])
def test_a_window_finds_the_one_that_is_most_alike_and_of_equal_ones_the_nearest(size):
    image, content = (torch.nn.functional.interpolate(picture(seed), size=size) for seed in (1, 2))
    content[..., size[1] // 2 :] = 0.5  # all windows of which are alike
    image[..., : size[0] // 2, :] = 0.5
    ours, theirs = (fill._windows(one, 1) for one in (image, content))
    rows, columns = theirs.shape[:2]
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) * (fill._STRIDE / max(size))
    ours, theirs = ours.flatten(0, 1).flatten(1), theirs.flatten(0, 1).flatten(1)
    difference = (ours[:, None] - theirs).square().mean(2)
    cost = difference + fill._NEARNESS * (place[:, None] - place).square().sum(2)
    found = fill._best_matches(image, content, torch.arange(len(ours)))
    torch.testing.assert_close(cost.gather(1, found[:, None])[:, 0], cost.amin(1), rtol=0, atol=1e-6)
