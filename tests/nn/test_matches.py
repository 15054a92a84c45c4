"""The longest matches of the end of a text: the definition in loops, all places at once, and the native core."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_model import match_rows

from bytelm.errors import ConfigError
from bytelm.model.axes import MatchConfig, NgramConfig
from bytelm.nn import matches as module
from bytelm.nn import native
from bytelm.nn.matches import Matches
from bytelm.nn.windows import ABSENT, with_windows_before

BOTH = [
    pytest.param(False, id="torch"),
    pytest.param(True, id="core", marks=pytest.mark.skipif(native.core is None, reason="the core was not built")),
]
options_of_matches = st.fixed_dictionaries(
    {
        "lengths": st.sampled_from([(1,), (1, 2, 3, 5), (2, 4, 8), (3, 64)]),
        "candidates": st.integers(1, 4),
        "reach": st.integers(4, 30),
        "symbols": st.sampled_from([2, 3, 256]),
    }
)


def made(config):
    return Matches(config.lengths, config.candidates, config.reach, config.symbols)


def rows_of(config, windows, prefixes, core):
    with pytest.MonkeyPatch.context() as patch:
        if not core:
            patch.setattr(native, "core", None)
            patch.setattr(module, "_MOST", 1000)  # several pieces
        return made(config).rows_of(windows, prefixes)


@pytest.mark.parametrize("core", BOTH)
@given(data=st.data(), options=options_of_matches)
def test_rows_are_those_of_the_definition(core, data, options):
    config = MatchConfig(**options)
    symbols = st.integers(0, data.draw(st.integers(0, 3), label="largest symbol"))
    texts = data.draw(st.lists(st.lists(symbols, min_size=24, max_size=24), min_size=2, max_size=2), label="texts")
    known = data.draw(st.integers(0, 3), label="known")
    windows = with_windows_before(torch.tensor(texts).view(2, 12, 2), None, 9)
    prefixes = torch.tensor(data.draw(st.lists(symbols, min_size=24 * known, max_size=24 * known))).view(2, 12, known)
    found = rows_of(config, windows, prefixes.long(), core)
    for row in range(2):
        for place in range(12):
            expected = match_rows(config, windows[row, place].tolist(), prefixes[row, place].tolist())
            assert found[row, place].tolist() == expected


@pytest.mark.parametrize("core", BOTH)
def test_a_match_that_is_longer_comes_first_and_of_equals_the_latest(core):
    config = MatchConfig(lengths=(1, 2, 3), candidates=3, reach=30, symbols=10)
    first, second, third = 0, 31, 62
    text = torch.tensor([[1, 2, 7, 3, 2, 8, 3, 2, 9, 1, 2]])  # after 1 2 came 7, after 2 alone 9, and before it 8
    rows = rows_of(config, text, text[:, :0], core)
    assert rows.tolist() == [[first + 1 + 10 + 7, second + 1 + 9, third + 1 + 8]]
    split = rows_of(config, text[:, :-2], text[:, -2:], core)
    assert torch.equal(split, rows)
    assert rows_of(config, text[:, -3:], text[:, :0], core).tolist() == [[first, second, third]]


@pytest.mark.parametrize("core", BOTH)
def test_what_is_absent_matches_nothing_and_what_is_out_of_reach_is_not_seen(core):
    config = MatchConfig(lengths=(1,), candidates=1, reach=4, symbols=10)
    text = torch.tensor([[5, 6, 0, 0, 1, 5], [5, 6, 0, 5, 1, 5], [ABSENT, 6, 2, ABSENT, ABSENT, ABSENT]])
    assert rows_of(config, text, text[:, :0], core).tolist() == [[0], [1 + 1], [0]]


@pytest.mark.parametrize("core", BOTH)
def test_windows_are_read_however_they_lie(core):
    text = torch.randint(0, 3, (4, 6, 40), generator=torch.Generator().manual_seed(0))
    config = MatchConfig(lengths=(1, 3), candidates=2, reach=30)
    expected = rows_of(config, text, text[..., :0], core)
    for lies in (
        text.transpose(0, 1).contiguous().transpose(0, 1),
        text.mT.contiguous().mT,
        text[:, :, None].squeeze(2),
    ):
        assert torch.equal(rows_of(config, lies, lies[..., :0], core), expected)
    assert torch.equal(rows_of(config, text[0], text[0, :, :0], core), expected[0])
    assert torch.equal(rows_of(config, text[0, 0], text[0, 0, :0], core), expected[0, 0])
    assert rows_of(config, text[:0], text[:0, :, :0], core).shape == (0, 6, 2)


def test_the_core_refuses_more_than_it_has_room_for():
    if native.core is None:
        pytest.skip("the core was not built")
    text = torch.zeros(1, 1, 8, dtype=torch.int64)
    for wrong in (Matches((1, 65), 1, 8, 2), Matches((1,), 9, 8, 2)):
        with pytest.raises(ValueError, match="expected at most 8 and 64"):
            wrong.rows_of(text, text[..., :0])


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *(("lengths", ()), ("lengths", (0, 1)), ("lengths", (2, 2)), ("lengths", (3, 2)), ("lengths", (1, 65))),
        *(("candidates", 0), ("candidates", 9), ("reach", 3), ("symbols", 0)),
    ],
)
def test_wrong_options_are_one_clear_error(option, wrong):
    with pytest.raises(ConfigError, match=f"{option}: found .*, expected"):
        MatchConfig(**{"lengths": (3, 5), option: wrong})


def test_rows_are_counted():
    config = NgramConfig(orders=(2, 3), rows=10, row_width=8, matches=MatchConfig(lengths=(2, 4), candidates=3))
    assert made(config.matches).num_rows == config.matches.num_rows == 3 * (1 + 2 * 256)
    assert config.num_in_rows(16) == 8 * (2 * 10 + config.matches.num_rows)
    assert (config.num_read, config.num_seen) == (5, 1024)
