"""Products of matrices by either of torch's libraries: the same numbers, and the one that is quick."""

import pytest
import torch
from tiny import relative_error

from nst_video.devices import products
from nst_video.devices.products import batched_product, plus_product, product


@pytest.fixture(params=["Intel Xeon", "AMD EPYC"])
def processor(request, monkeypatch):
    """Products as on a processor of this name."""
    monkeypatch.setattr(products, "cpu_name", lambda: request.param)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    forget = products.onednn.cache_clear
    forget()
    yield request.param
    forget()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def transposed(*shape, seed=0):
    return random(*shape[:-2], shape[-1], shape[-2], seed=seed).mT


@pytest.mark.parametrize("made", [random, transposed])
@pytest.mark.parametrize("shape", [(5, 7, 3), (200, 36, 300), (36, 36, 1000), (300, 2000, 300)])
def test_it_is_the_product(processor, shape, made):
    m, k, n = shape
    a, b = made(m, k), made(k, n, seed=1)
    assert relative_error(product(a, b), a.double() @ b.double()) < 1e-6


@pytest.mark.parametrize("count", [1, 3])
def test_so_it_is_of_a_batch(processor, count):
    a, b, c = random(count, 150, 40), transposed(count, 40, 170, seed=1), random(count, 150, 170, seed=2)
    wanted = a.double() @ b.double()
    assert relative_error(batched_product(a, b), wanted) < 1e-6
    got = plus_product(c, a, b)
    assert got is c
    assert relative_error(got, wanted + random(count, 150, 170, seed=2).double()) < 1e-6


def test_what_is_added_may_come_in_parts(processor, monkeypatch):
    monkeypatch.setattr(products, "_AT_A_TIME", 1 << 16)
    a, b, c = random(2, 500, 40), random(2, 40, 170, seed=1), random(2, 500, 170, seed=2)
    assert relative_error(plus_product(c.clone(), a, b), c.double() + a.double() @ b.double()) < 1e-6


def test_sums_of_outer_products_are_symmetric_enough(processor):
    flat = random(2, 260, 5000)
    found = batched_product(flat, flat.mT)
    assert relative_error(found, flat.double() @ flat.double().mT) < 1e-6
    assert relative_error(found, found.mT.double()) < 1e-6


def test_other_number_formats_are_left_to_torch(processor):
    a, b = random(1, 150, 40).bfloat16(), random(1, 40, 170).bfloat16()
    assert torch.equal(batched_product(a, b), torch.bmm(a, b))
    assert torch.equal(product(a[0].double(), b[0].double()), a[0].double() @ b[0].double())


def test_the_library_is_the_one_that_is_quick(processor, monkeypatch):
    used = []

    def linear(a, b, *_):
        used.append(b.shape)
        return a @ b.mT

    monkeypatch.setattr(products, "onednn", lambda: linear if processor.startswith("AMD") else None)
    product(random(200, 36), random(36, 300))
    product(random(8, 5000), random(5000, 8))  # few sums, which are long
    assert used == ([(300, 36)] if processor.startswith("AMD") else [])


@pytest.mark.parametrize(
    ("name", "mkl", "mkldnn", "quick", "by_onednn"),
    [
        ("Intel Xeon", True, True, True, False),
        ("AMD EPYC", True, True, True, True),
        ("AMD EPYC", True, False, False, False),
        ("AMD EPYC", False, True, True, False),
        ("", True, True, True, False),
    ],
)
def test_which_library_depends_on_the_processor(monkeypatch, name, mkl, mkldnn, quick, by_onednn):
    monkeypatch.setattr(products, "cpu_name", lambda: name)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    products.onednn.cache_clear()
    assert products.are_quick() is quick
    assert (products.onednn() is not None) is by_onednn
    products.onednn.cache_clear()
