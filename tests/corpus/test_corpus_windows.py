import pickle
from collections import Counter

import numpy as np
import pytest
from source_files import write_source

from bytelm.corpus import ContiguousWindows, Corpus, RandomWindows, build_corpus
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError

NUM_BYTES = 131


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    text = "".join(chr(33 + i % 90) for i in range(NUM_BYTES - 5))
    build_corpus(write_source(folder / "x.txt", [text]), get_encoding("utf8"), folder / "out", shard_bytes=17)
    return Corpus.open(folder / "out")


@pytest.fixture(scope="module")
def stream(corpus):
    return b"".join(path.read_bytes() for path in sorted(corpus.folder.glob("shard-*.bin")))


def test_random_windows_are_pieces_of_the_stream(corpus, stream):
    windows = RandomWindows(corpus, 50, seed=1, size=200)
    assert len(windows) == 200
    for i, window in enumerate(windows):
        start = windows.offset(i)
        assert window.dtype == np.uint8
        assert window.tobytes() == stream[start : start + 50]


def offsets(corpus, length=100, **keys):
    windows = RandomWindows(corpus, length, **keys)
    return [windows.offset(i) for i in range(len(windows))]


def test_offsets_depend_on_seed_epoch_and_index_alone(corpus):
    windows = RandomWindows(corpus, 100, seed=3, epoch=5, size=40)
    known = [windows.offset(i) for i in range(40)]
    assert [windows.offset(i) for i in reversed(range(40))] == known[::-1]
    assert offsets(corpus, seed=3, epoch=5, size=90)[:40] == known
    assert [w.tobytes() for w in pickle.loads(pickle.dumps(windows))] == [w.tobytes() for w in windows]
    moved = windows.at_epoch(6)
    assert [moved.offset(i) for i in range(40)] == offsets(corpus, seed=3, epoch=6, size=40)
    others = [offsets(corpus, seed=s, epoch=e, size=40) for s, e in [(3, 5), (5, 3), (3, 6), (4, 5), (2**64 - 1, 0)]]
    assert len(set(map(tuple, others))) == 5


def philox_word(seed: int, epoch: int, counter: int) -> int:
    """The first word of Philox4x64-10, from the paper (Salmon et al. 2011, table 2 and section 4.3)."""
    mask = 2**64 - 1
    x, key = [counter & mask, counter >> 64, 0, 0], [seed, epoch]
    for _ in range(10):
        first, second = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [second >> 64 ^ x[1] ^ key[0], second & mask, first >> 64 ^ x[3] ^ key[1], first & mask]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return x[0]


def test_offsets_are_the_same_on_every_machine(corpus):
    for seed, epoch in [(0, 0), (7, 3), (2**64 - 1, 2**63)]:
        # numpy counts up before it draws; the index is the second word of the counter
        expected = [philox_word(seed, epoch, (i << 64) + 1) * 32 >> 64 for i in range(20)]
        assert offsets(corpus, seed=seed, epoch=epoch, size=20) == expected


def test_sequences_behave_like_sequences(corpus):
    windows = RandomWindows(corpus, 20, seed=0, size=5)
    assert windows[-1].tobytes() == windows[4].tobytes()
    assert [w.tobytes() for w in windows[1:4:2]] == [windows[1].tobytes(), windows[3].tobytes()]
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"found window {index}, expected one of 5"):
            windows[index]
    assert len(RandomWindows(corpus, 20, seed=0, size=0)) == 0


# Offsets are uniform: chi-square at an error rate of 1e-4, with seeds that are fixed

NUM_OFFSETS = 16
NUM_DRAWS = 40_000


def chi_square(draws) -> float:
    counts = Counter(draws)
    assert set(counts) <= set(range(NUM_OFFSETS))
    expected = len(draws) / NUM_OFFSETS
    return sum((counts[k] - expected) ** 2 / expected for k in range(NUM_OFFSETS))


def is_uniform(draws) -> bool:
    """The Wilson-Hilferty approximation of the chi-square quantile; 3.719 is the normal one of 1 - 1e-4."""
    spread = 2 / (9 * (NUM_OFFSETS - 1))
    return chi_square(draws) < (NUM_OFFSETS - 1) * (1 - spread + 3.719 * spread**0.5) ** 3


LENGTH = NUM_BYTES - NUM_OFFSETS + 1


@pytest.fixture(scope="module")
def draws_along_indices(corpus):
    return offsets(corpus, LENGTH, seed=11, size=NUM_DRAWS)


def pairs(draws):
    """Uniform as well if neighbours are independent."""
    return [(a + b) % NUM_OFFSETS for a, b in zip(draws[::2], draws[1::2], strict=True)]


def test_offsets_are_uniform_over_the_windows_of_an_epoch(draws_along_indices):
    assert is_uniform(draws_along_indices)
    assert is_uniform(pairs(draws_along_indices))


@pytest.mark.parametrize("name", ["seed", "epoch"])
def test_offsets_are_uniform_over_seeds_and_epochs(corpus, name):
    draws = [RandomWindows(corpus, LENGTH, **{"seed": 0, name: k}, size=4).offset(3) for k in range(5_000)]
    assert is_uniform(draws)
    assert is_uniform(pairs(draws))


def test_the_test_of_uniformity_sees_a_bias_of_two_per_cent(draws_along_indices):
    draws = np.array(draws_along_indices)
    # in total variation: 4 per cent of the upper half are moved to the lower half
    upper = np.flatnonzero(draws >= NUM_OFFSETS // 2)
    draws[upper[::25]] -= NUM_OFFSETS // 2
    assert not is_uniform(draws.tolist())


# Contiguous windows


@pytest.mark.parametrize("targets", [1, 2, 4])
@pytest.mark.parametrize("length", [5, 8, 50, 127, 130, 131])
def test_contiguous_windows_predict_each_byte_once(corpus, stream, length, targets):
    windows = ContiguousWindows(corpus, length, targets)
    pieces = [window.tobytes() for window in windows]
    step = length - targets
    assert {len(piece) for piece in pieces} == {length}
    assert stream.startswith(pieces[0] + b"".join(piece[targets:] for piece in pieces[1:]))
    covered = length + (len(pieces) - 1) * step
    assert NUM_BYTES - step < covered <= NUM_BYTES
    assert [windows.offset(i) for i in range(len(pieces))] == [i * step for i in range(len(pieces))]


@pytest.mark.parametrize(
    "make", [ContiguousWindows, lambda corpus, length: RandomWindows(corpus, length, seed=0, size=1)]
)
def test_a_corpus_shorter_than_a_window(corpus, make):
    with pytest.raises(CorpusError, match=r"out: found a corpus of 131 bytes, expected at least one window of 132"):
        make(corpus, 132)
    with pytest.raises(CorpusError, match="found windows of 0 bytes, expected at least"):
        make(corpus, 0)


def test_arguments_are_checked(corpus):
    with pytest.raises(CorpusError, match="windows of 4 bytes, expected at least 5"):
        ContiguousWindows(corpus, 4)
    for wrong in ({"seed": -1}, {"seed": 2**64}, {"seed": 0, "epoch": -1}):
        with pytest.raises(CorpusError, match=r"(seed|epoch): found .*, expected 0 to 2\^64 - 1"):
            RandomWindows(corpus, 10, **{"size": 1, **wrong})
    with pytest.raises(CorpusError, match="size: found -1"):
        RandomWindows(corpus, 10, seed=0, size=-1)
