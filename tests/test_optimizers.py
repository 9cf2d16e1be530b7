"""Optimisers: known minima, independent lanes, the direction of the textbook, and no look at the data from the host."""

import os
import warnings

import numpy as np
import pytest
import torch
from tiny import LOOK, TinyEncoder, picture

from nst_video.optimization import curvature, losses
from nst_video.optimization.curvature import Curvature, combined
from nst_video.optimization.objective import FrameObjective, Weights
from nst_video.optimization.optimizers import LBFGS, OPTIMIZERS, Adam, minimise

SHAPE = (3, 4, 4)
PIXELS = 48


# ------------------------------------------------------------------------------------------ functions


def quadratic(condition=1e3, seed=0):
    """1/2 (x - b)' A (x - b) of every lane, eigenvalues from 1 / condition to 1 in directions of no special kind."""
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.normal(size=(PIXELS, PIXELS)))[0]
    matrix = torch.tensor((turn * np.geomspace(1 / condition, 1, PIXELS)) @ turn.T, dtype=torch.float32)
    minimum = torch.tensor(generator.normal(size=PIXELS), dtype=torch.float32)

    def objective(image):
        gap = image.flatten(1) - minimum
        return 0.5 * ((gap @ matrix) * gap).sum(1), {}

    return objective, minimum


def rosenbrock():
    """Sum over 24 pairs of 100 (v - u^2)^2 + (1 - u)^2: a curved valley with its end at (1, 1)."""

    def objective(image):
        u, v = image.flatten(1).unflatten(1, (-1, 2)).unbind(2)
        return (100 * (v - u**2) ** 2 + (1 - u) ** 2).sum(1), {}

    return objective, torch.ones(PIXELS)


def logistic():
    """Regularised logistic regression on 200 random points; its minimum by Newton's method in float64."""
    generator = np.random.default_rng(3)
    points = generator.normal(size=(200, PIXELS))
    signs = np.sign(points @ generator.normal(size=PIXELS) + generator.normal(size=200))
    signed, x = points * signs[:, None], np.zeros(PIXELS)
    for _ in range(20):
        p = 1 / (1 + np.exp(signed @ x))
        gradient = -signed.T @ p / 200 + 0.02 * x
        x -= np.linalg.solve((signed.T * (p * (1 - p))) @ signed / 200 + 0.02 * np.eye(PIXELS), gradient)
    rows = torch.tensor(signed, dtype=torch.float32)

    def objective(image):
        weights = image.flatten(1)
        return torch.nn.functional.softplus(-weights @ rows.T).mean(1) + 0.01 * weights.square().sum(1), {}

    return objective, torch.tensor(x, dtype=torch.float32)


FUNCTIONS = {"ill-conditioned quadratic": quadratic, "Rosenbrock": rosenbrock, "logistic regression": logistic}


def start(lanes=1, seed=0):
    return torch.randn(lanes, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 0.5


class Recorder:
    """An objective that keeps every image it was shown and the gradient there."""

    def __init__(self, objective):
        self.objective, self.images, self.gradients = objective, [], []

    def __call__(self, image):
        with torch.enable_grad():
            leaf = image.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.objective(leaf)[0].sum(), leaf)
        self.images.append(leaf.detach().flatten(1))
        self.gradients.append(gradient.flatten(1))
        return self.objective(image)


# ------------------------------------------------------------------------------------------ minima


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("optimizer", "evaluations", "first_step", "gap", "away"),
    # How far Adam gets along the flat valley of Rosenbrock's function depends on how the processor rounds.
    [("lbfgs", 300, 0.05, 1e-5, 0.02), ("adam", 3000, 0.03, 1e-2, 0.05)],
)
def test_the_known_minimum_is_found_in_every_lane(function, optimizer, evaluations, first_step, gap, away):
    objective, minimum = FUNCTIONS[function]()
    found = minimise(objective, start(2), evaluations=evaluations, optimizer=optimizer, first_step=first_step)
    least = objective(minimum.view(1, *SHAPE))[0]
    torch.testing.assert_close(found.loss, least.expand(2), rtol=0, atol=gap)
    assert (found.image.flatten(1) - minimum).abs().max() < away


def no_pairs(lanes, dtype, history=10):
    return Curvature.empty(lanes, PIXELS, history, dtype=dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_known_minimum_is_found_with_rounded_pairs(function):
    objective, minimum = FUNCTIONS[function]()
    found = minimise(objective, start(2), evaluations=300, curvature=no_pairs(2, torch.bfloat16))
    assert found.curvature.pairs.dtype == torch.bfloat16
    assert found.curvature.filled.all()
    torch.testing.assert_close(found.loss, objective(minimum.view(1, *SHAPE))[0].expand(2), rtol=0, atol=1e-5)
    assert (found.image.flatten(1) - minimum).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_lbfgs_gets_at_least_as_far_as_torchs_in_40_evaluations(function, dtype):
    objective, _ = FUNCTIONS[function]()
    ours = minimise(objective, start(), evaluations=40, curvature=no_pairs(1, dtype)).loss.item()
    assert ours <= torch_lbfgs(objective, start(), evaluations=40, line_search=None) * (1 + 1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_number_of_evaluations_is_exact(optimizer):
    objective = Recorder(quadratic()[0])
    for evaluations in (1, 2, 17):
        objective.images.clear()
        found = minimise(objective, start(2), evaluations=evaluations, optimizer=optimizer)
        assert len(objective.images) == evaluations
        assert found.record["loss"].shape == found.accepted.shape == (evaluations, 2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_evaluation_returns_the_start(optimizer):
    found = minimise(quadratic()[0], start(), evaluations=1, optimizer=optimizer)
    assert torch.equal(found.image, start())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_image_returned_is_the_best_one_seen_and_its_loss_is_told(optimizer):
    objective, _ = rosenbrock()
    found = minimise(objective, start(2), evaluations=25, optimizer=optimizer, first_step=0.3)
    torch.testing.assert_close(objective(found.image)[0], found.loss)
    accepted = torch.where(found.accepted, found.record["loss"], torch.inf)
    assert torch.equal(accepted.amin(0), found.loss)
    assert (found.loss < found.record["loss"][0]).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_taken_before_anything_is_known_changes_pixels_by_first_step(optimizer):
    objective = Recorder(quadratic(condition=1)[0])
    minimise(objective, start(), evaluations=2, optimizer=optimizer, first_step=0.01)
    change = (objective.images[1] - objective.images[0]).square().mean().sqrt()
    assert change.item() == pytest.approx(0.01, rel=1e-3)


def test_lbfgs_keeps_a_step_only_where_the_loss_fell():
    found = minimise(rosenbrock()[0], start(3), evaluations=60, first_step=1.0)
    assert not found.accepted.all()
    for lane in range(3):
        kept = found.record["loss"][found.accepted[:, lane], lane]
        assert (kept.diff() < 0).all()


def test_further_values_of_the_objective_are_recorded():
    objective, _ = quadratic()

    def with_parts(image):
        loss, _ = objective(image)
        return loss, {"half": loss / 2}

    found = minimise(with_parts, start(2), evaluations=5)
    assert torch.equal(found.record["half"], found.record["loss"] / 2)
    assert not found.record["half"].requires_grad


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_callers_tensors_stay_as_they_are(optimizer):
    objective, _ = quadratic()
    carried = minimise(objective, start(2), evaluations=14, history=4).curvature
    image, curvature = start(2, seed=1), carried.clone()
    minimise(objective, image, evaluations=9, optimizer=optimizer, curvature=carried)
    assert torch.equal(image, start(2, seed=1))
    for name, value in vars(curvature).items():
        assert torch.equal(value, getattr(carried, name)), name


# ------------------------------------------------------------------------------------------ lanes


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_lane_alone_equals_the_lane_among_others(optimizer):
    # Lanes on scales that lie far apart: whatever is shared between them would show.
    scale = torch.tensor([1.0, 1e6, 1e-6])
    base, _ = quadratic(condition=30)

    def objective(factors):
        return lambda image: (factors * base(image)[0], {})

    together = minimise(objective(scale), start(3), evaluations=20, optimizer=optimizer)
    for lane in range(3):
        alone = minimise(objective(scale[lane]), start(3)[lane : lane + 1], evaluations=20, optimizer=optimizer)
        torch.testing.assert_close(together.image[lane], alone.image[0], rtol=0, atol=1e-3)
        torch.testing.assert_close(together.loss[lane], alone.loss[0], rtol=1e-2, atol=0)


def breaking(objective, at, value):
    """`objective`, whose first lane becomes `value` (loss and gradient) at the evaluations `at`, counted from 0."""
    count = iter(range(10**6))

    def broken(image):
        loss, parts = objective(image)
        spoil = torch.ones_like(loss)
        if next(count) in at:
            spoil[0] = value
        return loss * spoil, parts

    return broken


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("at", [range(100), range(4, 7)], ids=["always", "for a while"])
def test_a_lane_that_goes_bad_does_not_touch_the_other(optimizer, value, at):
    objective, _ = quadratic(condition=30)
    healthy = minimise(objective, start(2), evaluations=20, optimizer=optimizer)
    found = minimise(breaking(objective, at, value), start(2), evaluations=20, optimizer=optimizer)
    assert torch.equal(found.image[1], healthy.image[1])
    assert torch.equal(found.record["loss"][:, 1], healthy.record["loss"][:, 1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_is_never_accepted(optimizer, value):
    objective, _ = quadratic(condition=30)
    found = minimise(breaking(objective, range(4, 7), value), start(2), evaluations=40, optimizer=optimizer)
    assert not found.accepted[4:7, 0].any()
    assert found.image.isfinite().all()
    assert (found.loss < 0.3 * found.record["loss"][0]).all()


def test_steps_into_a_region_that_is_not_finite_are_taken_back():
    # -log x, a barrier: everything to the left of 0 is NaN, and the first step goes there.
    found = minimise(
        lambda x: ((x - 0.5 * x.log()).sum((1, 2, 3)), {}), start().abs() + 1, evaluations=80, first_step=2.0
    )
    assert found.record["loss"][1].isnan().all()
    torch.testing.assert_close(found.image, torch.full_like(found.image, 0.5), rtol=0, atol=0.01)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_start_that_is_not_finite_is_told_by_its_loss(optimizer):
    image = start(2)
    image[0, 0, 0, 0] = torch.nan
    found = minimise(quadratic()[0], image, evaluations=5, optimizer=optimizer)
    assert found.loss.isfinite().tolist() == [False, True]


# ------------------------------------------------------------------------------------------ L-BFGS


def two_loop(pairs, gradient):
    """-H g by the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4) in float64, oldest pair first."""
    q, kept = gradient.astype(np.float64), []
    for s, y in reversed(pairs):
        alpha = (s @ q) / (s @ y)
        q = q - alpha * y
        kept.append(alpha)
    s, y = pairs[-1]
    r = q * (s @ y) / (y @ y)
    for (s, y), alpha in zip(pairs, reversed(kept), strict=True):
        r = r + s * (alpha - (y @ r) / (s @ y))
    return -r


def random_pairs(count, seed):
    """s and y = A s with a fixed positive definite A: float64 arrays."""
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(PIXELS, PIXELS)) / PIXELS**0.5
    matrix = root @ root.T + 0.1 * np.eye(PIXELS)
    return [(s, matrix @ s) for s in generator.normal(size=(count, PIXELS))]


def ring_of(lanes, history, dtype=torch.float32):
    """A Curvature that holds the last `history` of each lane's pairs, as they would have been stored one by one."""
    curvature = Curvature.empty(len(lanes), PIXELS, history, dtype=dtype)
    for lane, pairs in enumerate(lanes):
        for number, (s, y) in enumerate(pairs):
            slot = number % history
            curvature.pairs[lane, slot], curvature.pairs[lane, slot + history] = torch.tensor(s), torch.tensor(y)
            curvature.filled[lane, slot] = True
        curvature.head[lane] = len(pairs) % history
    return curvature.moved(lambda pairs: pairs)


def direction(solver):
    """Where each lane (L, n) goes next."""
    return (solver.trial - solver.image) / solver.length[:, None]


def relative_gap(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def rounded(pairs, dtype):
    """Pairs of float64 arrays, as they are once they are stored."""
    return [tuple(torch.tensor(vector).to(dtype).double().numpy() for vector in pair) for pair in pairs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_direction_is_that_of_the_two_loop_recursion(monkeypatch, dtype):
    # Rounded pairs are taken in several parts, of which one is smaller.
    monkeypatch.setitem(curvature._CONVERTED, False, 50 * 6 * 20)
    counts = (1, 3, 9, 10, 13, 27)  # one pair, a ring that is not full, full, and wrapped round
    lanes = [rounded(random_pairs(count, seed), dtype) for seed, count in enumerate(counts)]
    slopes = torch.randn(len(counts), *SHAPE, generator=torch.Generator().manual_seed(9))
    solver = LBFGS(
        lambda image: ((slopes * image).sum((1, 2, 3)), {}),
        torch.zeros_like(slopes),
        first_step=0.05,
        curvature=ring_of(lanes, history=10, dtype=dtype),
        history=10,
    )
    for lane, pairs in enumerate(lanes):
        expected = two_loop(pairs[-10:], slopes[lane].flatten().numpy())
        assert relative_gap(direction(solver)[lane].numpy(), expected) < 1e-3, counts[lane]


@pytest.mark.parametrize("kept", [1, 4, 9])
def test_the_newest_pairs_alone_give_their_direction(kept):
    lanes = [random_pairs(count, seed) for seed, count in enumerate((2, 10, 13))]
    fewer = ring_of(lanes, history=10).newest(kept)
    assert fewer.history == kept
    assert fewer.filled.sum(1).tolist() == [min(kept, len(pairs)) for pairs in lanes]
    slopes = torch.randn(len(lanes), *SHAPE, generator=torch.Generator().manual_seed(9))
    solver = LBFGS(
        lambda image: ((slopes * image).sum((1, 2, 3)), {}),
        torch.zeros_like(slopes),
        first_step=0.05,
        curvature=fewer,
        history=kept,
    )
    for lane, pairs in enumerate(lanes):
        expected = two_loop(pairs[-kept:], slopes[lane].flatten().numpy())
        assert relative_gap(direction(solver)[lane].numpy(), expected) < 1e-3
    assert solver.memory.newest(kept) is solver.memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("evaluations", [2, 6, 31])
def test_the_pairs_gathered_on_the_way_give_the_direction_of_the_two_loop_recursion(evaluations, dtype):
    objective = Recorder(rosenbrock()[0])
    solver = LBFGS(objective, start(), first_step=0.5, curvature=no_pairs(1, dtype, history=7), history=7)
    for _ in range(evaluations - 1):
        solver.iterate()
    images, gradients = (
        [part[0].double().numpy() for part in parts] for parts in (objective.images, objective.gradients)
    )
    pairs, at = [], 0
    for trial in range(1, evaluations):  # a rejected trial gives its pair too
        s, y = images[trial] - images[at], gradients[trial] - gradients[at]
        if s @ y > 1e-4 * np.linalg.norm(s) * np.linalg.norm(y):
            pairs.append((s, y))
        at = trial if bool(solver.rows[trial]["accepted"]) else at
    assert pairs
    expected = two_loop(rounded(pairs, dtype)[-7:], gradients[at])
    assert relative_gap(direction(solver)[0].numpy(), expected) < 2e-2


def test_a_pair_without_curvature_is_not_stored():
    concave = LBFGS(
        lambda image: (-image.square().sum((1, 2, 3)), {}), start(), first_step=0.05, curvature=None, history=4
    )
    for _ in range(5):
        concave.iterate()
    assert not concave.memory.filled.any()
    assert (direction(concave) * concave.gradient).sum() < 0


def test_curvature_carried_over_speeds_up_a_related_problem():
    objective, _ = quadratic(condition=300)
    learnt = minimise(objective, start(), evaluations=60, history=20)
    shift = 0.3 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))

    def related(image):
        return objective(image - shift)

    fresh = minimise(related, learnt.image, evaluations=6)
    warm = minimise(related, learnt.image, evaluations=6, curvature=learnt.curvature)
    assert warm.loss < 0.5 * fresh.loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moving_the_pairs_nowhere_changes_nothing(dtype):
    curvature = minimise(rosenbrock()[0], start(2), evaluations=30, curvature=no_pairs(2, dtype, history=6)).curvature
    moved = curvature.moved(lambda pairs: pairs.clone())
    for name in ("pairs", "filled", "head"):
        assert torch.equal(getattr(moved, name), getattr(curvature, name)), name
    for name in ("sy", "yy"):
        torch.testing.assert_close(getattr(moved, name), getattr(curvature, name), rtol=1e-4, atol=1e-6)


def test_pairs_moved_with_the_picture_solve_the_moved_problem_alike():
    objective, _ = rosenbrock()
    before = minimise(objective, start(), evaluations=20)
    stayed = minimise(objective, before.image, evaluations=6, curvature=before.curvature)

    def flipped(image):
        return objective(image.flip(3))

    moved = before.curvature.moved(lambda pairs: pairs.view(-1, *SHAPE).flip(3).flatten(1))
    found = minimise(flipped, before.image.flip(3), evaluations=6, curvature=moved)
    torch.testing.assert_close(found.image.flip(3), stayed.image, rtol=0, atol=1e-3)


def test_a_pair_whose_curvature_is_noise_after_a_move_is_dropped():
    step, change = np.eye(PIXELS)[0], np.eye(PIXELS)[1]
    for bend, kept in ((1e-5, False), (1e-3, True)):
        moved = ring_of([[(step, change + bend * step)]], history=1).moved(lambda pairs: pairs)
        assert moved.filled.tolist() == [[kept]]


def test_a_pair_that_a_move_robs_of_its_curvature_is_dropped():
    lanes = [random_pairs(5, 0)]
    curvature = ring_of(lanes, history=5)
    assert curvature.filled.all()
    gone = curvature.moved(torch.zeros_like)
    assert not gone.filled.any()
    newest_gone = curvature.moved(lambda pairs: pairs * (torch.arange(10)[:, None] != 4))
    assert newest_gone.filled.tolist() == [[True, True, True, True, False]]
    slope = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(2))
    solver = LBFGS(
        lambda image: ((slope * image).sum((1, 2, 3)), {}),
        torch.zeros_like(slope),
        first_step=0.05,
        curvature=newest_gone,
        history=5,
    )
    expected = two_loop(lanes[0][:4], slope.flatten().numpy())
    assert relative_gap(direction(solver)[0].numpy(), expected) < 1e-3


# ------------------------------------------------------------------------------------------ on the device


@pytest.mark.parametrize("solver", [LBFGS, Adam])
def test_no_iteration_looks_at_the_data(solver):
    # Tensors on "meta" have shapes and no values: whatever waits for a value raises there.
    image = torch.empty(2, *SHAPE, device="meta")
    with pytest.raises(RuntimeError):
        bool(image.sum() > 0)
    solver = solver(lambda x: (x.square().sum((1, 2, 3)), {}), image, first_step=0.05, curvature=None, history=3)
    for _ in range(5):
        solver.iterate()
    assert solver.result().accepted.shape == (6, 2)


@pytest.mark.skipif(
    not torch.cuda.is_available() and not os.environ.get("NST_VIDEO_REQUIRE_CUDA"), reason="no CUDA device"
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_iteration_waits_for_a_cuda_device(optimizer):
    objective, _ = rosenbrock()
    solver = OPTIMIZERS[optimizer](objective, start(2).cuda(), first_step=0.05, curvature=None, history=3)
    solver.iterate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is new
            torch.cuda.set_sync_debug_mode("error")
        for _ in range(8):
            solver.iterate()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert solver.result().loss.isfinite().all()


# ------------------------------------------------------------------------------------------ a real stylisation


def torch_lbfgs(objective, image, *, evaluations, line_search):
    """The lowest loss that torch.optim.LBFGS sees in its first `evaluations` evaluations, a history of 10."""
    leaf, seen = image.clone().requires_grad_(True), []
    solver = torch.optim.LBFGS(
        [leaf],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=10,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn=line_search,
    )

    def closure():
        solver.zero_grad()
        loss = objective(leaf)[0].sum()
        loss.backward()
        seen.append(loss.item())
        return loss

    solver.step(closure)
    return min(loss for loss in seen[:evaluations] if np.isfinite(loss))


def stylisation(content, style):
    encoder = TinyEncoder()
    grams = {layer: losses.gram(found).mean for layer, found in encoder(picture(style, grain=1.0)).items()}
    weights = Weights(content=0.05, style=1.0, tv=0.5, temporal=20.0)
    return FrameObjective(encoder, LOOK, content=picture(content), styles=grams, weights=weights)


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_stylisations_end_no_higher_than_with_torchs_lbfgs(line_search):
    # One problem alone differs by a percent either way, as rounding has it; six together hardly do.
    ours, theirs = [], []
    for number in range(6):
        objective, image = stylisation(number, 10 + number), picture(number)
        ours.append(minimise(objective, image, evaluations=50, history=10, first_step=0.02).loss.item())
        theirs.append(torch_lbfgs(objective, image, evaluations=50, line_search=line_search))
    ratios = np.array(ours) / theirs
    assert ratios.mean() < 1.005
    assert ratios.max() < 1.03


@pytest.mark.parametrize("pixels", [1, 63, 64, 1000])
def test_pairs_are_combined_by_their_coefficients(pixels):
    generator = torch.Generator().manual_seed(0)
    pairs, coefficients = (torch.randn(2, 6, *more, generator=generator) for more in ((pixels,), ()))
    wanted = (pairs.double() * coefficients[:, :, None]).sum(1)
    torch.testing.assert_close(combined(coefficients, pairs).double(), wanted, rtol=0, atol=1e-5)
