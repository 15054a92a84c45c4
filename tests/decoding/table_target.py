"""Targets whose law is a table over the last symbols, and a decoder so slow and plain that one can see it is right."""

import functools
import math

import numpy as np
import torch

ORDER = 2
_STATES = 61


class TableLaw:
    """A Markov law of order 2: the logits are a row of a table, chosen by a hash of the last two symbols."""

    def __init__(self, vocab, seed, scale=2.0):
        generator = torch.Generator().manual_seed(seed)
        self.vocab = vocab
        self.table = torch.randn(_STATES, vocab, generator=generator) * scale

    def __call__(self, context):
        """Logits (B, V) after the symbols (B, any number >= 2)."""
        return self.table[(context[:, -2] * 17 + context[:, -1] * 5 + 3) % _STATES]


def last_symbols(prompt):
    """The context of a prompt: its last two symbols, zeros where it is shorter."""
    return ([0] * ORDER + [int(s) for s in prompt])[-ORDER:]


class VerifyBlock:
    """Width N + 1: symbol i is known while the first i of the draft are what was emitted; poisoned elsewhere."""

    def __init__(self, target, draft):
        self.target, self.draft = target, draft
        self.width = draft.shape[1] + 1

    def covers(self, emitted):
        return (self.draft[:, : emitted.shape[1]] == emitted).all(1)

    def logits(self, emitted):
        width = emitted.shape[1]
        assert width < self.width
        law = self.target.law(torch.cat((self.target.context, self.draft[:, :width]), 1))
        return law.masked_fill(~self.covers(emitted)[:, None], math.nan)

    def draft_logits(self, emitted, counts, drafted):
        assert (counts >= 1).all()
        assert drafted.shape[1] < self.target.max_draft
        context = self.target.following(emitted, counts)
        return self.target.draft_law(torch.cat((context, drafted), 1))


class PatchBlock(VerifyBlock):
    """Width 4 with no draft: the law of every symbol is known whatever was emitted before."""

    def __init__(self, target):
        self.target, self.width = target, 4

    def covers(self, emitted):
        return torch.ones(len(emitted), dtype=torch.bool)

    def logits(self, emitted):
        assert emitted.shape[1] < self.width
        self.target.asked += 1
        return self.target.law(torch.cat((self.target.context, emitted), 1))


class TableTarget:
    """Implements Target structurally. Checks that what the loop hands over is what the protocol promises."""

    device = torch.device("cpu")

    def __init__(self, law, *, max_draft=0, draft_law=None, patch=False):
        self.law, self.max_draft, self.draft_law, self.patch = law, max_draft, draft_law, patch
        self.forwards, self.asked, self.committed = 0, 0, []

    def _block(self, draft):
        self.forwards += 1
        return PatchBlock(self) if self.patch else VerifyBlock(self, draft)

    def following(self, emitted, counts):
        symbols = torch.cat((self.context, emitted), 1)
        return symbols.gather(1, counts[:, None] + torch.arange(ORDER))

    def start(self, prompts, num_new):
        self.context = torch.tensor([last_symbols(p) for p in prompts])
        self.finished = torch.zeros(len(prompts), dtype=torch.bool)
        return self._block(self.context[:, :0])

    def advance(self, emitted, counts, draft):
        assert emitted.dtype == draft.dtype == torch.int64
        assert 0 <= int(emitted.min()) <= int(emitted.max()) < self.law.vocab
        assert draft.shape[1] <= self.max_draft
        assert ((counts == 0) | ~self.finished).all(), "a finished row came back"
        self.finished = counts == 0
        assert not self.finished.all(), "a needless forward"
        assert int(counts.max()) <= emitted.shape[1]
        self.committed.append((emitted, counts))
        self.context = self.following(emitted, counts)
        return self._block(draft)


# The slow reference ---------------------------------------------------------------------------------------------------


def philox_reference(counter, key):
    """Philox4x32-10 in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second % 2**32, (first >> 32) ^ c[3] ^ k[1], first % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@functools.cache
def noise_reference(seed, row, position, vocab):
    """Gumbel noise of every symbol, one by one."""
    noise = []
    for symbol in range(vocab):
        words = philox_reference((symbol // 2, position, row, 0), (seed % 2**32, seed >> 32))
        high, low = words[2 * (symbol % 2) :][:2]
        u = ((high * 2**20 + low // 2**12) + 0.5) / 2**52
        noise.append(-math.log(-math.log(u)))
    return np.array(noise)


def warp_reference(logits, temperature=1.0, top_k=None, top_p=None):
    """Log-probabilities of one row in float64 by sorting and counting, without any of the library's operations."""
    scores = [float(x) / temperature for x in logits]
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i), reverse=True)
    kept = set(order)
    if top_k is not None and top_k < len(scores):
        kept = {i for i in order if scores[i] >= scores[order[top_k - 1]]}
    if top_p is not None and top_p < 1:
        weights = {i: math.exp(scores[i] - scores[order[0]]) for i in kept}
        total, mass, nucleus = math.fsum(weights.values()), 0.0, set()
        for i in order:
            if i in kept and (not nucleus or mass < top_p):
                nucleus.add(i)
                mass += weights[i] / total
        kept = nucleus
    norm = math.log(math.fsum(math.exp(scores[i] - scores[order[0]]) for i in kept)) + scores[order[0]]
    return np.array([scores[i] - norm if i in kept else -math.inf for i in range(len(scores))])


def decode_reference(law, prompt, sampling, max_new, *, seed=0, row=0, stop=None):
    """One row, one symbol at a time: symbols, nats, and whether ``stop(symbols)`` ended it."""
    history, symbols, nats = last_symbols(prompt), [], []
    while len(symbols) < max_new:
        logits = law(torch.tensor([history]))[0].double().numpy()
        if sampling.greedy:
            symbol = int(np.argmax(logits))
        else:
            log_p = warp_reference(logits, sampling.temperature, sampling.top_k, sampling.top_p)
            symbol = int(np.argmax(log_p + noise_reference(seed, row, len(symbols), law.vocab)))
        nats.append(-warp_reference(logits)[symbol])
        symbols.append(symbol)
        history.append(symbol)
        if stop is not None and stop(symbols):
            return symbols, nats, "stop"
    return symbols, nats, "length"
