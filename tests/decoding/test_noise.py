"""The cipher is the published one, and what is made of it is Gumbel noise without visible dependence.

The statistical tests run at level 1e-4 each on fixed seeds: about forty of them, so a correct but differently keyed
generator would fail one of them by chance once in a few hundred changes.
"""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.decoding.noise import GumbelNoise, philox4x32, row_seeds, uniform
from bytelm.errors import DecodingError
from bytelm.testing.reference import noise_reference, philox_reference
from bytelm.testing.significance import chi_square_p, kolmogorov_p

ALPHA = 1e-4
KNOWN = [  # Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, output
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
words = st.integers(0, 2**32 - 1)


def tensors(numbers):
    return tuple(torch.tensor([n]) for n in numbers)


def noise(seeds, positions, vocab, stream=0):
    """Noise (B, V) of each row at one position."""
    return GumbelNoise(seeds, stream)(np.asarray(positions), 1, vocab)[:, 0].numpy()


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


@pytest.mark.parametrize("stream", [0, 1, 3])
@pytest.mark.parametrize("vocab", [1, 2, 7, 256])
def test_noise_equals_its_definition(vocab, stream):
    seeds, positions = [(0, 0), (2**64 - 1, 3), (12345678901234, 2**31)], [0, 700, 2**31]
    found = GumbelNoise(seeds, stream)(np.array(positions), 3, vocab).numpy()
    assert found.shape == (3, 3, vocab)
    for row, (pair, begin) in enumerate(zip(seeds, positions, strict=True)):
        for n in range(3):
            np.testing.assert_allclose(found[row, n], noise_reference(*pair, begin + n, vocab, stream), rtol=1e-13)


@functools.cache
def alone(row, position, vocab):
    """Noise of one row at one position, computed for nothing else."""
    return GumbelNoise([(5, row)])(np.array([position]), 1, vocab)[0, 0]


def alone_together(rows, positions, count, vocab):
    return torch.stack(
        [
            torch.stack([alone(row, position + n, vocab) for n in range(count)])
            for row, position in zip(rows, positions, strict=True)
        ]
    )


# With 1000 symbols a chunk is 10 positions of three rows, with 40 it is 256: requests cross the ends of both.
places = st.lists(st.one_of(st.integers(0, 40), st.integers(245, 270)), min_size=3, max_size=3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(places, st.integers(1, 14)), min_size=1, max_size=8), st.sampled_from([40, 1000]))
def test_noise_does_not_depend_on_what_was_asked_before(requests, vocab):
    held = GumbelNoise(row_seeds(5, 3))
    for positions, count in requests:
        assert torch.equal(held(np.array(positions), count, vocab), alone_together(range(3), positions, count, vocab))


def test_every_border_of_a_chunk():
    """Rows that advance at their own pace, one position to some at a time, over several chunks of 65."""
    held, rng, positions = GumbelNoise(row_seeds(5, 2)), np.random.default_rng(0), np.array([0, 0])
    chunks = set()
    while positions.max() < 200:
        found = held(positions, 5, 250)
        chunks.add(held._chunk_BNV.data_ptr())
        assert torch.equal(found, alone_together(range(2), positions.tolist(), 5, 250))
        positions = positions + rng.integers(0, 5, 2)
    assert len(chunks) > 1, "no border was crossed"


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4)), max_size=4))
def test_select_keeps_the_noise_of_rows(choices):
    """Rows leave, change places and are copied, with or without a chunk in hand; each keeps its own noise."""
    held, rows, positions = GumbelNoise(row_seeds(5, 3)), np.arange(3), np.array([0, 4, 9])
    for choice, count in choices:
        assert torch.equal(held(positions, count, 1000), alone_together(rows.tolist(), positions.tolist(), count, 1000))
        chosen = np.array(choice) % len(rows)
        held.select(chosen)
        rows, positions = rows[chosen], positions[chosen] + count
    held.select(np.array([0]))
    assert torch.equal(held(positions[:1], 2, 1000), alone_together(rows[:1].tolist(), positions[:1].tolist(), 2, 1000))


def test_noise_of_a_symbol_does_not_depend_on_the_vocabulary():
    held = GumbelNoise(row_seeds(5, 1))
    small, large, again = (held(np.array([3]), 2, vocab) for vocab in (7, 50257, 7))
    assert torch.equal(small, large[..., :7])
    assert torch.equal(small, again)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_is_the_same_on_a_gpu():
    """Words to the bit; the two logarithms may round their last place differently."""
    generator = torch.Generator().manual_seed(0)
    counter, key = ([torch.randint(0, 2**32, (1000,), generator=generator) for _ in range(n)] for n in (4, 2))
    on_gpu = philox4x32(tuple(c.cuda() for c in counter), tuple(k.cuda() for k in key))
    assert all(torch.equal(a, b.cpu()) for a, b in zip(philox4x32(tuple(counter), tuple(key)), on_gpu, strict=True))
    seeds, positions = row_seeds(11, 5), np.array([0, 3, 700, 2**31, 9])
    cpu = GumbelNoise(seeds)(positions, 4, 1000)
    gpu = GumbelNoise(seeds)(positions, 4, 1000, torch.device("cuda")).cpu()
    torch.testing.assert_close(gpu, cpu, rtol=1e-14, atol=1e-14)


def test_extreme_words_stay_finite_and_inside():
    for k in (0, 2**52 - 1):
        u = (torch.tensor(k).double() + 0.5) * 2.0**-52
        assert 0 < u < 1
        assert math.isfinite(-math.log(-math.log(u)))


def sample(stream=0):
    """Uniforms (rows, positions, symbols) of one seed."""
    return uniforms(GumbelNoise(row_seeds(1234, 40), stream)(np.zeros(40, np.int64), 40, 64).numpy())


@pytest.mark.parametrize("stream", range(4))
def test_uniformity(stream):
    u = sample(stream)
    assert len(np.unique(u)) == u.size, "a tie"
    assert kolmogorov_p(u.ravel()) > ALPHA
    assert chi_square_p(np.bincount((u.ravel() * 500).astype(int), minlength=500), np.full(500, 1 / 500)) > ALPHA
    assert kolmogorov_p(u.ravel() ** 1.02) < ALPHA, "negative control"
    # Fine structure: the low half of the 52 bits too.
    assert kolmogorov_p((u.ravel() * 2**26) % 1) > ALPHA


def test_uniform_is_what_the_gumbel_number_was_made_of():
    gumbel = GumbelNoise([(8, 0)])(np.array([0]), 1, 1000)[0, 0]
    expected = [math.exp(-math.exp(-g)) for g in noise_reference(8, 0, 0, 1000)]
    np.testing.assert_allclose(uniform(gumbel).numpy(), expected, rtol=1e-12)
    assert kolmogorov_p(uniform(gumbel).numpy()) > ALPHA


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


def test_streams_are_independent():
    streams = [sample(stream) for stream in range(4)]
    for a, b in itertools.combinations(range(4), 2):
        assert pair_p(streams[a], streams[b]) > ALPHA, "of the same symbol"
        assert pair_p(streams[a][:, :-1], streams[b][:, 1:]) > ALPHA, "of the next position"
        # The stream is a word of the counter beside the row's: row b of stream a is not row a of stream b.
        assert pair_p(streams[a][b], streams[b][a], cells=8) > ALPHA
        assert not np.intersect1d(streams[a], streams[b]).size
    assert pair_p(streams[0], 0.9 * streams[0] + 0.1 * streams[1]) < ALPHA, "negative control"


def test_seeds_of_rows():
    assert row_seeds(9, 3) == [(9, 0), (9, 1), (9, 2)]
    assert row_seeds([9, 8], 2) == [(9, 0), (8, 0)]
    assert row_seeds(9, 2, 2) == [(9, 0), (9, 1), (9, 2), (9, 3)]
    assert row_seeds([9, 8], 2, 3) == [(9, 0), (9, 1), (9, 2), (8, 0), (8, 1), (8, 2)]
    for bad, count in ((-1, 1), (2**64, 1), ([1], 2), ([0, -5], 2)):
        with pytest.raises(DecodingError, match="seed"):
            row_seeds(bad, count)
