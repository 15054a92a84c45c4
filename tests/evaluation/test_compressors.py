import lzma

import numpy as np
import pytest

from bytelm.evaluation.compressors import bits_per_char, xz_bytes, zstd_bytes

COMPRESSORS = [xz_bytes, zstd_bytes]


def random_text(seed, length):
    rng = np.random.default_rng(seed)
    return "".join(map(chr, rng.integers(0x3041, 0x3097, length)))


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_a_text_that_the_decoder_has_is_nearly_free(compress):
    text, other = random_text(0, 20_000), random_text(1, 20_000)
    alone = bits_per_char(compress, [text])
    assert np.log2(0x3097 - 0x3041) < alone < 1.4 * np.log2(0x3097 - 0x3041)
    assert bits_per_char(compress, [text], [other, text, other]) < 0.1
    # Another random text tells the alphabet and no more.
    assert bits_per_char(compress, [text], [other]) == pytest.approx(alone, rel=0.1)


def test_without_a_text_before_it_xz_is_the_format_itself():
    data = random_text(2, 5_000).encode()
    assert xz_bytes(data) == len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
