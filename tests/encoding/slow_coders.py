"""Slow, obvious coders: one character or one piece at a time, from the definitions, with no code of the library."""

import functools

INVALID = -1000
SCALARS = [*range(0xD800), *range(0xE000, 0x110000)]


def ranking(ranked: str) -> list[int]:
    """All scalar values by rank."""
    first = [ord(character) for character in ranked]
    known = set(first)
    return first + [scalar for scalar in SCALARS if scalar not in known]


class SlowDense:
    """An (s,c)-dense code: the words of each length are counted upwards like numbers, the stopper turning fastest."""

    def __init__(self, s, c, ranked, max_word):
        self.s, self.c, self.max_word = s, c, max_word
        self.scalars = ranking(ranked)
        self.rank = {scalar: rank for rank, scalar in enumerate(self.scalars)}

    def word(self, scalar):
        rank = self.rank[scalar]
        length = 1
        while rank >= self.s * self.c ** (length - 1):
            rank -= self.s * self.c ** (length - 1)
            length += 1
        word = [rank % self.s]
        rank //= self.s
        for _ in range(length - 1):
            word.insert(0, self.s + rank % self.c)
            rank //= self.c
        return bytes(word)

    def value(self, word):
        rank = 0
        for byte in word[:-1]:
            rank = rank * self.c + byte - self.s
        rank = rank * self.s + word[-1] + sum(self.s * self.c**k for k in range(len(word) - 1))
        return self.scalars[rank] if rank < len(self.scalars) else INVALID

    def parse(self, data):
        values, starts, at = [], [], 0
        while at < len(data):
            end = at
            while end < len(data) and self.s <= data[end] < 248 and end - at < self.max_word - 1:
                end += 1
            starts.append(at)
            if end < len(data) and data[end] < self.s:
                values.append(self.value(data[at : end + 1]))
                at = end + 1
            elif end == at:
                values.append(-1 - (data[at] - 248))
                at += 1
            else:
                values.append(INVALID)
                at = end
        return values, starts


class SlowPairs:
    """16-bit units: singles, pairs of a lead and a trail, controls."""

    def __init__(self, singles, pairs, leads, trails, controls):
        self.leads, self.trails, self.controls = leads, trails, controls
        self.singles, self.pairs = singles, pairs
        self.word_of = {scalar: unit.to_bytes(2, "big") for unit, scalar in singles.items()}
        for index, scalar in enumerate(pairs):
            lead, trail = divmod(index, len(trails))
            self.word_of[scalar] = leads[lead].to_bytes(2, "big") + trails[trail].to_bytes(2, "big")

    def word(self, scalar):
        return self.word_of[scalar]

    def parse(self, data):
        values, starts, at = [], [], 0
        while at < len(data):
            starts.append(at)
            piece = data[at : at + 4]
            unit = int.from_bytes(piece[:2], "big")
            following = int.from_bytes(piece[2:], "big") if len(piece) == 4 else None
            if len(piece) == 1:
                values.append(INVALID)
                at += 1
            elif unit in self.leads and following is not None and following in self.trails:
                index = self.leads.index(unit) * len(self.trails) + self.trails.index(following)
                values.append(self.pairs[index] if index < len(self.pairs) else INVALID)
                at += 4
            elif unit in self.leads and len(piece) == 3 and any(trail >> 8 == piece[2] for trail in self.trails):
                values.append(INVALID)
                at += 3
            elif unit in self.controls:
                values.append(-1 - self.controls.index(unit))
                at += 2
            else:
                values.append(self.singles.get(unit, INVALID))
                at += 2
        return values, starts


def slow_utf16():
    singles = {unit: unit for unit in [*range(0xD800), *range(0xE000, 0x10000)]}
    pairs = list(range(0x10000, 0x110000))
    return SlowPairs(singles, pairs, range(0xD800, 0xDC00), range(0xDC00, 0xE000), range(0xDC00, 0xDC08))


def slow_ranked2(ranked):
    scalars = ranking(ranked)
    num_singles = 65536 - 1024 - 1088 - 8
    leads = range(num_singles, num_singles + 1024)
    trails = range(leads.stop, leads.stop + 1088)
    return SlowPairs(
        dict(enumerate(scalars[:num_singles])), scalars[num_singles:], leads, trails, range(trails.stop, 65536)
    )


class SlowUtf32:
    """Four bytes a unit."""

    def word(self, scalar):
        return scalar.to_bytes(4, "big")

    def parse(self, data):
        values, starts = [], list(range(0, len(data), 4))
        for at in starts:
            unit = int.from_bytes(data[at : at + 4], "big")
            if len(data) - at < 4 or 0xD800 <= unit < 0xE000 or unit >= 0x110008:
                values.append(INVALID)
            else:
                values.append(unit if unit < 0x110000 else -1 - (unit - 0x110000))
        return values, starts


class SlowUtf8:
    """Python's own codec, asked about every possible piece."""

    def word(self, scalar):
        return chr(scalar).encode("utf-8")

    def parse(self, data):
        values, starts, at = [], [], 0
        while at < len(data):
            starts.append(at)
            value, length = self.piece(data[at : at + 4])
            values.append(value)
            at += length
        return values, starts

    def piece(self, data):
        if data[0] >= 0xF8:
            return -1 - (data[0] - 0xF8), 1
        for length in range(1, len(data) + 1):
            try:
                return ord(data[:length].decode("utf-8")), length
            except UnicodeDecodeError as error:
                if error.reason != "unexpected end of data":
                    return INVALID, max(length - 1, 1)
        return INVALID, len(data)


@functools.cache
def slow_coder(encoding):
    """The slow coder of one of the package's encodings; only the parameters of its table are read from it."""
    match encoding.name:
        case "utf8":
            return SlowUtf8()
        case "utf16":
            return slow_utf16()
        case "utf32":
            return SlowUtf32()
        case "ranked2":
            return slow_ranked2(encoding.ranked)
        case _:
            return SlowDense(encoding.s, encoding.c, encoding.ranked, encoding.max_word)
