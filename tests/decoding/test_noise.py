"""The cipher is the published one, and what is made of it is Gumbel noise without visible dependence.

The statistical tests run at level 1e-4 each on fixed seeds: about ten of them, so a correct but differently keyed
generator would fail one of them by chance once in a thousand changes.
"""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from significance import chi_square_p, kolmogorov_p
from table_target import noise_reference, philox_reference

from bytelm.decoding.noise import GumbelNoise, philox4x32, row_seeds
from bytelm.errors import DecodingError

ALPHA = 1e-4
KNOWN = [  # Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, output
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
words = st.integers(0, 2**32 - 1)


def tensors(numbers):
    return tuple(torch.tensor([n]) for n in numbers)


def noise(seeds, positions, vocab):
    return GumbelNoise(seeds)(np.asarray(positions), vocab).numpy()


def uniforms(gumbel):
    return np.exp(-np.exp(-gumbel))


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output):
    counter, key, output = ([int(w, 16) for w in text.split()] for text in (counter, key, output))
    assert [int(w) for w in philox4x32(tensors(counter), tensors(key))] == output
    assert philox_reference(counter, key) == output


@settings(deadline=None)
@given(st.tuples(words, words, words, words), st.tuples(words, words))
def test_cipher_equals_its_definition_in_integers(counter, key):
    assert [int(w) for w in philox4x32(tensors(counter), tensors(key))] == philox_reference(counter, key)


@pytest.mark.parametrize("vocab", [1, 2, 7, 256])
def test_noise_equals_its_definition(vocab):
    seeds = [(0, 0), (2**64 - 1, 3), (12345678901234, 2**31)]
    found = noise(seeds, [0, 700, 2**31], vocab)
    for row, ((seed, identity), position) in enumerate(zip(seeds, [0, 700, 2**31], strict=True)):
        np.testing.assert_allclose(found[row], noise_reference(seed, identity, position, vocab), rtol=1e-13)


@functools.cache
def alone(row, position, vocab):
    """Noise of one row at one position, computed for nothing else."""
    return GumbelNoise([(5, row)])(np.array([position]), vocab)[0]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=1, max_size=12),
    st.sampled_from([7, 1000]),
)
def test_noise_does_not_depend_on_what_was_asked_before(requests, vocab):
    held = GumbelNoise(row_seeds(5, 3))
    for positions in requests:
        found = held(np.array(positions), vocab)
        assert torch.equal(found, torch.stack([alone(r, p, vocab) for r, p in enumerate(positions)]))


def test_noise_of_a_symbol_does_not_depend_on_the_vocabulary():
    held = GumbelNoise(row_seeds(5, 1))
    small, large, again = (held(np.array([3]), vocab) for vocab in (7, 50257, 7))
    assert torch.equal(small, large[:, :7])
    assert torch.equal(small, again)


def test_extreme_words_stay_finite_and_inside():
    for k in (0, 2**52 - 1):
        u = (torch.tensor(k).double() + 0.5) * 2.0**-52
        assert 0 < u < 1
        assert math.isfinite(-math.log(-math.log(u)))


def sample():
    """Uniforms (rows, positions, symbols) of one seed."""
    held = GumbelNoise(row_seeds(1234, 40))
    return uniforms(np.stack([held(np.full(40, p), 64).numpy() for p in range(40)], axis=1))


def test_uniformity():
    u = sample()
    assert len(np.unique(u)) == u.size, "a tie"
    assert kolmogorov_p(u.ravel()) > ALPHA
    assert chi_square_p(np.bincount((u.ravel() * 500).astype(int), minlength=500), np.full(500, 1 / 500)) > ALPHA
    assert kolmogorov_p(u.ravel() ** 1.02) < ALPHA, "negative control"
    # Fine structure: the low half of the 52 bits too.
    assert kolmogorov_p((u.ravel() * 2**26) % 1) > ALPHA


def pair_p(a, b, cells=12):
    """P-value that (a, b) are independent uniforms."""
    table = np.bincount((a.ravel() * cells).astype(int) * cells + (b.ravel() * cells).astype(int), minlength=cells**2)
    return chi_square_p(table, np.full(cells**2, cells**-2.0))


def test_independence_of_rows_positions_symbols_and_seeds():
    u = sample()
    assert pair_p(u[:-1], u[1:]) > ALPHA
    assert pair_p(u[:, :-1], u[:, 1:]) > ALPHA
    assert pair_p(u[..., :-1], u[..., 1:]) > ALPHA
    assert pair_p(u[..., ::2], u[..., 1::2]) > ALPHA, "the two symbols of one cipher output"
    # Row r at position p against row p at position r: the words of the counter do not commute.
    assert pair_p(u, u.transpose(1, 0, 2)[:, ::-1]) > ALPHA
    by_seed = uniforms(np.stack([noise([(s, 0)], [0], 256)[0] for s in range(200)]))
    assert pair_p(by_seed[:-1], by_seed[1:]) > ALPHA
    high = uniforms(np.stack([noise([(s << 32, 0)], [0], 256)[0] for s in range(200)]))
    assert pair_p(by_seed[1:], high[1:]) > ALPHA
    assert pair_p(u, 0.9 * u + 0.1 * u[::-1]) < ALPHA, "negative control"


def test_seeds_of_rows():
    assert row_seeds(9, 3) == [(9, 0), (9, 1), (9, 2)]
    assert row_seeds([9, 8], 2) == [(9, 0), (8, 0)]
    for bad, count in ((-1, 1), (2**64, 1), ([1], 2), ([0, -5], 2)):
        with pytest.raises(DecodingError, match="seed"):
            row_seeds(bad, count)
