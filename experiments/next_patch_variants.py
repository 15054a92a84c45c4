"""How well a next-patch module drafts: variants trained side by side on one frozen model, or the one a model has.

python experiments/next_patch_variants.py MODEL VALID                                        # the module of MODEL
python experiments/next_patch_variants.py MODEL VALID --train TRAIN --variants data:512 law:512 law+state:1024

A variant is its target, ``data`` (the bytes of the text), ``law`` (the probabilities that the model itself gives on the
true state) or either with ``+state`` (a smooth L1 regression to the true state), and the inner width of its MLP.
"""

import argparse
import dataclasses
import math
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import bytelm
from bytelm.corpus import ContiguousWindows, Corpus, RandomWindows
from bytelm.model import ByteLM, build_model
from bytelm.model.byte_lm import cross_entropy
from bytelm.model.ends import NextPatchConfig
from bytelm.training import OptimizerConfig

DEPTH = 2
OPTIMIZER = OptimizerConfig(lr=2e-3, min_lr=1e-4, warmup_steps=20)


def batch(windows: RandomWindows | ContiguousWindows, indices: list[int]) -> Tensor:
    """Patches (B, T + 1, P) of some windows."""
    return torch.stack([torch.tensor(windows[i]) for i in indices]).unflatten(1, (-1, 4)).long()


def guesses(module: nn.Module, h: Tensor, windows: Tensor) -> list[Tensor]:
    """Guesses 1, 2, … patches ahead, from true states and true patches; guess n begins at position n."""
    out = []
    for n in range(1, DEPTH + 1):
        h = module(h[:, :-1], windows[:, n:])
        out.append(h)
    return out


def loss(model: ByteLM, module: nn.Module, target: str, h: Tensor, patches: Tensor, logits: Tensor) -> Tensor:
    """The sum over depths of the mean loss."""
    windows, targets = patches[:, :-1], patches[:, 1:]
    frozen = {name: p.detach() for name, p in model.heads.named_parameters()}
    total = h.new_zeros(())
    for n, guess in enumerate(guesses(module, h, windows), 1):
        found = functional_call(model.heads, frozen, (guess, windows[:, n:], targets[:, n:])).flatten(0, 2)
        wanted = targets[:, n:].flatten() if "data" in target else logits[:, n:].flatten(0, 2).softmax(-1)
        total = total + F.cross_entropy(found, wanted)
        if "state" in target:
            total = total + F.smooth_l1_loss(guess, h[:, n:])
    return total


def choose(model: ByteLM, h: Tensor, windows: Tensor, noise: Tensor) -> Tensor:
    """The patches of largest ``log p + noise`` (B, T, P), byte by byte; without noise the greedy ones."""
    state, window, noise = h.flatten(0, 1), windows.flatten(0, 1), noise.flatten(0, 1)
    prefix = window[:, :0]
    for k in range(window.shape[1]):
        logits = model.heads.step(state, window, prefix).log_softmax(-1)
        prefix = torch.cat((prefix, (logits + noise[:, k]).argmax(-1, keepdim=True)), dim=1)
    return prefix.view(windows.shape)


class Draft(NamedTuple):
    """Of some drafted patches: nats of the bytes of the text, and where drafted bytes are those of the law."""

    nats: Tensor
    greedy: Tensor
    sampled: Tensor


@torch.inference_mode()
def evaluate(model: ByteLM, modules: dict[str, nn.Module | None], valid: ContiguousWindows, num_windows: int) -> None:
    """Print bits per byte, and the shares of drafted patches that agree with the law up to byte 1, 2, 3, 4."""
    chosen = torch.linspace(0, len(valid) - 1, num_windows).round().long().tolist()
    generator = torch.Generator().manual_seed(0)
    law_nats: list[Tensor] = []
    found: dict[tuple[str, int], list[Draft]] = {}
    for i in range(0, len(chosen), 8):
        patches = batch(valid, chosen[i : i + 8])
        windows, targets = patches[:, :-1], patches[:, 1:]
        h = model(windows)
        noise = -torch.rand((*windows.shape, 256), generator=generator).log().neg().log()
        law_nats.append(cross_entropy(model.heads(h, windows, targets), targets).flatten(0, 1))
        law = [choose(model, h, windows, z) for z in (0 * noise, noise)]
        for name, module in modules.items():
            drafts = guesses(module, h, windows) if module else [h[:, :-n] for n in range(1, DEPTH + 1)]
            for n, guess in enumerate(drafts, 1):
                w, t = windows[:, n:], targets[:, n:]
                nats = cross_entropy(model.heads(guess, w, t), t)
                same = [
                    choose(model, guess, w, z[:, n:]) == one[:, n:]
                    for z, one in zip((0 * noise, noise), law, strict=True)
                ]
                found.setdefault((name, n), []).append(Draft(*(x.flatten(0, 1) for x in (nats, *same))))
    print(f"law itself: {torch.cat(law_nats).mean() / math.log(2):.3f} bits per byte")
    print(
        "| module | ahead | bits/byte | greedy: up to byte 1, 2, 3, 4 | mean bytes | each byte | sampled | mean bytes |"
    )
    for (name, n), parts in found.items():
        nats, greedy, sampled = (torch.cat(column).double() for column in zip(*parts, strict=True))
        upto = [same.cumprod(1) for same in (greedy, sampled)]
        shares = [" ".join(f"{x:.3f}" for x in same.mean(0).tolist()) for same in (*upto, greedy)]
        means = [f"{same.sum(1).mean():.2f}" for same in upto]
        row = [f"{nats.mean() / math.log(2):.3f}", shares[0], means[0], shares[2], shares[1], means[1]]
        print(f"| {name} | {n} | {' | '.join(row)} |", flush=True)


def train(model: ByteLM, modules: dict[str, nn.Module], windows: RandomWindows, num_steps: int) -> None:
    """Train all modules on the same batches, each with an optimiser of its own."""
    optimizers = {name: OPTIMIZER.build(module, num_steps) for name, module in modules.items()}
    seconds = dict.fromkeys(["body", *modules], 0.0)
    size = len(windows) // num_steps
    for step in range(num_steps):
        began = time.perf_counter()
        patches = batch(windows, list(range(step * size, (step + 1) * size)))
        with torch.no_grad():
            h = model(patches[:, :-1])
            logits = model.heads(h, patches[:, :-1], patches[:, 1:])
        seconds["body"] += time.perf_counter() - began
        losses = []
        for name, module in modules.items():
            began = time.perf_counter()
            optimizer, schedule = optimizers[name]
            optimizer.zero_grad()
            value = loss(model, module, name, h, patches, logits)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(f"{name} {value.item():.3f}")
            seconds[name] += time.perf_counter() - began
        if step % 20 == 0 or step == num_steps - 1:
            print(step, *losses, {name: round(s) for name, s in seconds.items()}, flush=True)


def main() -> None:
    """Train where asked, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("valid")
    parser.add_argument("--train")
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--windows", type=int, default=64, help="held-out windows")
    given = parser.parse_args()
    lm = bytelm.load(given.model)
    model = lm.model.requires_grad_(False)
    length = model.config.context + model.config.patch
    modules: dict[str, nn.Module] = {}
    for variant in given.variants:
        config = dataclasses.replace(model.config, next_patch=NextPatchConfig(inner=int(variant.split(":")[1])))
        module = build_model(config, 0).next_patch
        assert module is not None
        modules[variant] = module
    if modules:
        corpus = Corpus.open(given.train, lm.encoding)
        train(model, modules, RandomWindows(corpus, length, seed=0, epoch=0, size=8 * given.steps), given.steps)
    if model.next_patch is not None:
        modules["of the model"] = model.next_patch
    valid = ContiguousWindows(Corpus.open(given.valid, lm.encoding), length)
    evaluate(model, {"none: the state before": None, **modules}, valid, given.windows)


if __name__ == "__main__":
    main()
