"""Coverage-guided fuzzing of all encodings against the reference coders; `make fuzz` runs it for ten minutes.

Not collected by pytest. Arguments go to libFuzzer: ``-max_total_time=600 -print_final_stats=1 -rss_limit_mb=0``;
without the last it stops after some 60,000 inputs, because the tracing of the fuzzer itself keeps memory.
"""

import sys

import atheris

with atheris.instrument_imports(include=["bytelm.encoding"]):
    from bytelm.encoding import get_encoding, kernels, list_encodings
    from bytelm.encoding.reference import reference_coder
    from bytelm.errors import EncodingError

ENCODINGS = [get_encoding(name) for name in list_encodings()]
REFERENCES = [reference_coder(encoding) for encoding in ENCODINGS]
MODES = ("strict", "replace", "surrogateescape")
CORES = [kernels._native, None]


def outcome(work, *args):
    """What it returned, or where it refused."""
    try:
        result = work(*args)
    except EncodingError as error:
        return str(error).split(":")[0]
    return result if isinstance(result, str | bytes) else result.tobytes()


def stream(encoding, data, errors, cut):
    decoder = encoding.decoder(errors)
    pieces = [data[start : start + cut] for start in range(0, len(data), cut)]
    return "".join([decoder.decode(piece) for piece in pieces]) + decoder.decode(final=True)


def check_bytes(encoding, reference, data, errors, cut):
    expected = outcome(reference.decode, data, errors)
    assert outcome(encoding.decode, data, errors) == expected
    assert outcome(stream, encoding, data, errors, cut) == expected
    values, starts = encoding.parse(data)
    assert (values.tolist(), starts.tolist()) == reference.parse(data)
    state = encoding.automaton().run(data)
    legal = all(value >= 0 and not 0xDC80 <= value <= 0xDCFF for value in values)
    assert (state == 0) == legal, (state, values)


def check_text(encoding, reference, text, errors):
    data = outcome(encoding.encode, text, errors)
    assert data == outcome(reference.encode, text, errors)
    if isinstance(data, bytes):
        assert encoding.decode(data, errors) == text


def one_input(data):
    """The first bytes choose encoding, mode, cut and core; the rest is data, and text by its code points."""
    if len(data) < 4:
        return
    choice, mode, cut, core = data[0] % len(ENCODINGS), MODES[data[1] % 3], 1 + data[2] % 7, CORES[data[3] % 2]
    encoding, reference, rest = ENCODINGS[choice], REFERENCES[choice], data[4:]
    kernels._native = core
    check_bytes(encoding, reference, rest, mode, cut)
    texts = [rest.decode("utf-8", "surrogateescape")]
    texts.append("".join(chr(int.from_bytes(rest[i : i + 3], "little") % 0x110000) for i in range(0, len(rest), 3)))
    for text in texts:
        check_text(encoding, reference, text, "strict" if mode == "replace" else mode)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
