"""The byte model once more, from its formulas: numpy float64, loops over heads and positions, complex rotation."""

import cmath
import math

import numpy as np


def weights(model):
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


def silu(x):
    return x / (1 + np.exp(-x))


def rms_norm(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def turn(x, position, base):
    """Rotate pairs (i, i + E/2) of one vector as complex numbers."""
    half = len(x) // 2
    out = np.empty_like(x)
    for i in range(half):
        z = complex(x[i], x[i + half]) * cmath.exp(1j * position * base ** (-2 * i / len(x)))
        out[i], out[i + half] = z.real, z.imag
    return out


def attention(x, w, name, config, base, positions=None):
    """Causal grouped-query attention of one sequence (T, D), query by query."""
    sizes, num = config, len(x)
    positions = range(num) if positions is None else positions
    group = sizes.num_heads // sizes.num_kv_heads
    parts = np.cumsum((sizes.num_heads, sizes.num_kv_heads)) * sizes.head_width
    q, k, v = np.split(x @ w[f"{name}.query_key_value.weight"].T, parts, axis=-1)
    y = np.zeros((num, sizes.num_heads * sizes.head_width))
    for head in range(sizes.num_heads):
        mine = slice(head * sizes.head_width, (head + 1) * sizes.head_width)
        shared = slice(head // group * sizes.head_width, (head // group + 1) * sizes.head_width)
        keys = [turn(k[t, shared], positions[t], base) for t in range(num)]
        for t in range(num):
            query = turn(q[t, mine], positions[t], base)
            scores = np.array([query @ keys[u] / math.sqrt(sizes.head_width) for u in range(t + 1)])
            share = np.exp(scores - scores.max())
            y[t, mine] = share @ v[: t + 1, shared] / share.sum()
    return y @ w[f"{name}.output.weight"].T


def ngram_row(data, num_rows):
    """Row of an n-gram, in Python integers."""
    key = len(data)
    for byte in data:
        key = (key * 257 + int(byte) + 1) % 2**32
        key = key * 0x9E3779B1 % 2**32
        key ^= key >> 15
    return key % num_rows


def match_rows(matches, window, prefix):
    """Rows of the symbols that followed the longest matches of the end: all places, sorted."""
    if matches is None:
        return []
    data, best = [int(symbol) for symbol in (*window[-matches.reach :], *prefix)], {}
    for place in range(len(data) - 1, 0, -1):
        length = 0
        while length < min(place, matches.lengths[-1]) and data[place - 1 - length] == data[-1 - length] != -1:
            length += 1
        if length >= matches.lengths[0] and length > best.get(data[place], (0, 0))[0]:
            best[data[place]] = length, place
    ranked = sorted(best.items(), key=lambda item: item[1], reverse=True)[: matches.candidates]
    rows = [candidate * (1 + len(matches.lengths) * matches.symbols) for candidate in range(matches.candidates)]
    for candidate, (symbol, (length, _)) in enumerate(ranked):
        step = sum(least <= length for least in matches.lengths) - 1
        rows[candidate] += 1 + step * matches.symbols + symbol % matches.symbols
    return rows


def table_sum(w, name, tables, window, prefix=()):
    """Sum of the rows of the n-grams that end ``data``."""
    table = w[f"{name}.tables.table.weight"]
    data = [*window, *prefix]
    ends = [data[len(data) - n :] for n in tables.orders]
    matches = [len(tables.orders) * tables.rows + row for row in match_rows(tables.matches, window, prefix)]
    if not tables.chosen:
        rows = [i * tables.rows + ngram_row(end, tables.rows) for i, end in enumerate(ends)]
        return sum(table[row] for row in rows + matches)
    keys = (w[f"{name}.tables.keys_R"] + 2**31).tolist()
    known = {key: place + len(ends) for place, key in reversed(list(enumerate(keys)))}
    return sum(table[row] for row in [known.get(ngram_row(end, 2**32), i) for i, end in enumerate(ends)] + matches)


def ngrams(w, name, tables, rows):
    """What the tables of a merger or of heads add."""
    return rows if tables.row_width is None else w[f"{name}.tables.projection.weight"] @ rows


def states(model, data, w=None):
    """State after each whole window of ``data``, whose first window begins at its first byte: (T, D)."""
    config, w = model.config, w or weights(model)
    windows = np.asarray(data)[: len(data) // config.patch * config.patch].reshape(-1, config.patch)
    text = [*[-1] * 99, *map(int, data)]  # before its first window it has no symbols
    x = []
    for t, window in enumerate(windows):
        joined = np.concatenate([w["merger.embedding.weight"][b] for b in window])
        merged = w["merger.projection.weight"] @ joined
        if config.merger.kind == "mlp":
            merged = merged + w["merger.down.weight"] @ silu(w["merger.up.weight"] @ joined)
        if config.merger.tables:
            rows = table_sum(w, "merger", config.merger.tables, text[: 99 + (t + 1) * config.patch])
            merged = merged + ngrams(w, "merger", config.merger.tables, rows)
        x.append(merged)
    x = np.array(x)
    for i in range(config.num_blocks):
        name = f"blocks.{i}"
        inner = rms_norm(x, w[f"{name}.attention_norm.weight"], config.norm.eps)
        x = x + attention(inner, w, f"{name}.attention", config.attention, config.position.base)
        inner = rms_norm(x, w[f"{name}.feedforward_norm.weight"], config.norm.eps)
        gate, up = np.split(inner @ w[f"{name}.feedforward.gate_up.weight"].T, 2, axis=-1)
        x = x + (silu(gate) * up) @ w[f"{name}.feedforward.down.weight"].T
    return rms_norm(x, w["norm.weight"], config.norm.eps)


def head_logits(model, h, before, prefix, w=None):
    """Logits of head len(prefix) + 1 of one state after the symbols ``before``: its stream, or its last window."""
    config, w, j = model.config, w or weights(model), len(prefix)
    if config.heads.kind == "independent":
        return w["heads.unembedding.weight"].reshape(config.patch, 256, -1)[j] @ h
    s, told = h, [h, *(w["heads.embedding.weight"][b] for b in prefix)]
    if config.heads.tables:
        rows = table_sum(w, "heads", config.heads.tables, [*[-1] * 99, *before], prefix)
        s = s + ngrams(w, "heads", config.heads.tables, rows)
        told += [rows] if config.heads.mixed else []
    if j or config.heads.mixed:
        name = f"heads.prefix_mlps.{j if config.heads.mixed else j - 1}"
        s = s + w[f"{name}.down.weight"] @ silu(w[f"{name}.up.weight"] @ np.concatenate(told))
    return w[f"heads.unembeddings.{j}.weight"] @ rms_norm(s, w["heads.norm.weight"], config.norm.eps)


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


def next_byte(model, law, committed, start):
    """Log-probabilities of the byte after ``committed`` under a law, from the definitions."""
    patch = model.config.patch
    told = 0 if law == "next" else (len(committed) - start) % patch
    body, prefix = committed[: len(committed) - told], committed[len(committed) - told :]
    body = body[len(body) % patch :]
    return log_softmax(head_logits(model, states(model, body)[-1], body, prefix))


def next_patch(model, h, patch):
    """Guess of the state after ``patch`` (P,) from the state ``h`` (D,) before it."""
    w, eps = weights(model), model.config.norm.eps
    name = "next_patch"
    merged = w[f"{name}.merger.projection.weight"] @ np.concatenate(
        [w[f"{name}.merger.embedding.weight"][byte] for byte in patch]
    )
    state = rms_norm(h, w[f"{name}.state_norm.weight"], eps)
    x = w[f"{name}.mix.weight"] @ np.concatenate((state, rms_norm(merged, w[f"{name}.bytes_norm.weight"], eps)))
    normed = rms_norm(x, w[f"{name}.feedforward_norm.weight"], eps)
    gate, up = np.split(w[f"{name}.feedforward.gate_up.weight"] @ normed, 2)
    return rms_norm(x + w[f"{name}.feedforward.down.weight"] @ (silu(gate) * up), w[f"{name}.norm.weight"], eps)
