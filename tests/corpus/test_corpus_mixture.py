"""Windows of one corpus without repetition, and of several in exact shares."""

import itertools
import pickle
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import write_source

from bytelm.corpus import CoveringWindows, MixedWindows, Permutation, Shares, build_corpus, permutation
from bytelm.corpus.corpus import Corpus
from bytelm.encoding import get_encoding
from bytelm.errors import CorpusError


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Corpora of different sizes; no 8 bytes of one occur in another, or twice."""
    folder, found = tmp_path_factory.mktemp("corpora"), []
    for number, size in enumerate((700, 150, 3000, 12)):
        rng = np.random.default_rng(number)
        text = "".join(chr(33 + (i + number * 20) % 90) for i in rng.integers(0, 90, size - 5))
        path = write_source(folder / f"{number}.txt", [text])
        build_corpus(path, get_encoding("utf8"), folder / f"{number}", shard_bytes=97)
        found.append(Corpus.open(folder / f"{number}"))
    return found


# Permutations


@pytest.mark.parametrize("size", [*range(1, 40), 255, 256, 257, 1000])
def test_a_permutation_is_one(size):
    values = [Permutation(size, b"key")(i) for i in range(size)]
    assert sorted(values) == list(range(size))


def test_a_permutation_of_many_takes_no_memory():
    size = 10**15 + 7
    first, other = Permutation(size, b"a"), Permutation(size, b"b")
    values = [first(i) for i in range(2000)]
    assert values == [Permutation(size, b"a")(i) for i in range(2000)]
    assert len(set(values)) == 2000
    assert 0.4 < np.mean(values) / size < 0.6
    assert not set(values) & {other(i) for i in range(2000)}


def chi_square_bound(freedom: int) -> float:
    """The Wilson-Hilferty approximation of the chi-square quantile; 3.719 is the normal one of 1 - 1e-4."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 3.719 * spread**0.5) ** 3


def is_uniform(draws: list[int], kinds: int) -> bool:
    counts, expected = Counter(draws), len(draws) / kinds
    assert set(counts) <= set(range(kinds))
    return sum((counts[k] - expected) ** 2 / expected for k in range(kinds)) < chi_square_bound(kinds - 1)


def places(size: int, keys: int = 4000) -> list[tuple[int, int]]:
    found = [Permutation(size, str(key).encode()) for key in range(keys)]
    return [(order(0), order(size // 2)) for order in found]


@pytest.mark.parametrize("size", [5, 12, 100])
def test_orders_are_uniform_over_keys(size):
    """Each place has each value equally often, and so do two places together."""
    drawn = places(size)
    assert is_uniform([a for a, _ in drawn], size)
    assert is_uniform([b for _, b in drawn], size)
    if size < 20:
        assert is_uniform([a * (size - 1) + b - (b > a) for a, b in drawn], size * (size - 1))


def test_the_test_of_orders_sees_too_few_rounds(monkeypatch):
    monkeypatch.setattr(permutation, "_ROUNDS", 2)
    drawn = places(12)
    assert not is_uniform([a * 11 + b - (b > a) for a, b in drawn], 132)


# Windows of one corpus


@pytest.mark.parametrize("patch", [1, 4])
@pytest.mark.parametrize("length", [6, 9, 20, 50, 70, 130, 699])
def test_an_epoch_covers_the_corpus_once(corpora, length, patch):
    corpus = corpora[0]
    windows = CoveringWindows(corpus, length, seed=3, patch=patch)
    size, read = len(windows), length - patch
    phases = Counter()
    for epoch in range(6):
        begins = [windows.offset(epoch * size + i) for i in range(size)]
        assert all(0 <= begin <= corpus.num_bytes - length for begin in begins)
        begins.sort()
        gaps = [after - before - read for before, after in itertools.pairwise(begins)]
        assert all(0 <= gap <= 2 * (patch - 1) for gap in gaps)
        left = begins[0] + corpus.num_bytes - patch - (begins[-1] + read)
        assert left < 2 * (length - 1) + patch
        phases.update(begin % 4 for begin in begins)
    if patch == 4 and length < 100:
        assert set(phases) == {0, 1, 2, 3}


def test_windows_are_pieces_of_the_stream(corpora):
    corpus = corpora[2]
    stream = corpus.read(0, corpus.num_bytes).tobytes()
    windows = CoveringWindows(corpus, 33, seed=1)
    for i in (0, 5, len(windows) - 1, len(windows), 10 * len(windows) + 3):
        start = windows.offset(i)
        assert windows.window(i).tobytes() == stream[start : start + 33]
    copy = pickle.loads(pickle.dumps(windows))
    assert [copy.offset(i) for i in range(200)] == [windows.offset(i) for i in range(200)]


def test_orders_differ_by_seed_stream_and_epoch(corpora):
    def order(seed=0, stream=0, epoch=0):
        windows = CoveringWindows(corpora[2], 30, seed=seed, stream=stream)
        return np.argsort([windows.offset(epoch * len(windows) + i) for i in range(len(windows))]).tolist()

    assert order(1, 2, 3) == order(1, 2, 3)
    assert len(set(map(tuple, (order(), order(seed=1), order(stream=1), order(epoch=1), order(seed=2**64 - 1))))) == 5
    assert order() != sorted(order())


def test_phases_and_places_are_uniform(corpora):
    """Over many epochs a byte is left out no more at one place than at another, and phases are equally frequent."""
    windows = CoveringWindows(corpora[1], 20, seed=9)
    begins = [windows.offset(i * len(windows)) for i in range(3000)]
    # with the slots of this corpus: 7 of 19 bytes would fit, 6 are used, from a byte of 33
    assert len(windows) == 6
    slots = {19 * slot + begin + phase for slot in range(6) for begin in range(33) for phase in range(4)}
    assert set(begins) <= slots
    assert is_uniform([begin % 4 for begin in begins], 4)


@pytest.mark.parametrize("length", [11, 12])
def test_a_corpus_of_one_window(corpora, length):
    corpus = corpora[3]
    windows = CoveringWindows(corpus, length, seed=0)
    assert len(windows) == 1
    assert {windows.offset(i) for i in range(50)} == set(range(corpus.num_bytes - length + 1))
    with pytest.raises(CorpusError, match="found a corpus of 12 bytes, expected at least one window of 13"):
        CoveringWindows(corpus, 13, seed=0)


# Shares

weights = st.lists(st.integers(1, 50).map(lambda n: n / 10), min_size=1, max_size=6)


@given(weights, st.integers(1, 500))
def test_shares_are_exact(weights, positions):
    shares = Shares(weights)
    exact = [Fraction(str(w)) / sum(Fraction(str(v)) for v in weights) for w in weights]
    assert shares.shares == exact
    seen = [0] * len(weights)
    for position in range(positions):
        assert shares.counts(position) == seen
        stream, item = shares.locate(position)
        assert item == seen[stream]  # in order, each once
        seen[stream] += 1
        for count, share in zip(seen, exact, strict=True):
            assert abs(count - (position + 1) * share) < len(weights)
    whole = shares.counts(3 * shares.period)
    assert whole == [3 * shares.period * share for share in exact]


def test_shares_of_awkward_weights():
    assert Shares([0.7, 0.2, 0.1]).period == 10
    assert Shares([2.0, 1.0]).shares == [Fraction(2, 3), Fraction(1, 3)]
    awkward = Shares([0.123457, 1e-6, 3.0])
    assert sum(awkward.shares) == 1
    far = 10**18 + 1
    assert sum(awkward.counts(far)) == far
    stream, item = awkward.locate(far)
    assert awkward.counts(far)[stream] == item


@pytest.mark.parametrize("wrong", [[], [0.0], [1.0, -1.0], [float("nan")], [float("inf"), 1.0]])
def test_weights_are_checked(wrong):
    with pytest.raises(CorpusError, match=r"weight.*: found .*, expected"):
        Shares(wrong)


# Mixtures


def mixed(corpora, weights, size, start=0, length=20):
    windows = [CoveringWindows(corpus, length, seed=5, stream=i) for i, corpus in enumerate(corpora)]
    return MixedWindows(list(zip(windows, weights, strict=True)), start=start, size=size)


def origin(streams, window) -> tuple[int, int]:
    ((found, begin),) = [(i, s.index(window.tobytes())) for i, s in enumerate(streams) if window.tobytes() in s]
    return found, begin


def test_realised_shares_match(corpora):
    chosen, weights = corpora[:3], [0.5, 0.2, 0.3]
    windows = mixed(chosen, weights, 1000)
    streams = [corpus.read(0, corpus.num_bytes).tobytes() for corpus in chosen]
    origins = [origin(streams, window) for window in windows]
    assert Counter(i for i, _ in origins) == {0: 500, 1: 200, 2: 300}
    for k in (10, 250, 730):
        counts = Counter(i for i, _ in origins[:k])
        assert [counts[i] for i in range(3)] == [k * weight for weight in weights]
    # the windows of each are all used before one of them comes again
    for i, corpus in enumerate(chosen):
        own = [begin for j, begin in origins if j == i]
        size = len(CoveringWindows(corpus, 20, seed=5, stream=i))
        for begin in range(0, len(own), size):
            epoch = sorted(own[begin : begin + size])
            assert all(after - before >= 16 for before, after in itertools.pairwise(epoch))
        assert len(own) > size or i == 2


def test_the_test_of_repetition_sees_random_offsets(corpora):
    from bytelm.corpus import RandomWindows

    size = len(CoveringWindows(corpora[0], 20, seed=5))
    own = sorted(RandomWindows(corpora[0], 20, seed=5, size=size).offset(i) for i in range(size))
    assert not all(after - before >= 16 for before, after in itertools.pairwise(own))


def test_windows_are_a_function_of_their_position(corpora):
    whole = [window.tobytes() for window in mixed(corpora[:3], [1, 2, 3], 300)]
    assert [window.tobytes() for window in mixed(corpora[:3], [1, 2, 3], 100, start=170)] == whole[170:270]
    windows = mixed(corpora[:3], [1, 2, 3], 300)
    assert [windows[i].tobytes() for i in reversed(range(300))] == whole[::-1]
    assert [w.tobytes() for w in pickle.loads(pickle.dumps(windows))] == whole


def test_what_does_not_mix(corpora, tmp_path):
    build_corpus(write_source(tmp_path / "x.txt", ["一" * 40]), get_encoding("utf16"), tmp_path / "out")
    other = Corpus.open(tmp_path / "out")
    with pytest.raises(CorpusError, match="out: found a corpus of encoding 'utf16', expected 'utf8' as in"):
        mixed([corpora[0], other], [1, 1], 10)
    with pytest.raises(CorpusError, match="weights: found none"):
        MixedWindows([], size=1)
    with pytest.raises(CorpusError, match="size: found -1"):
        mixed(corpora[:1], [1], -1)
