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

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import bytelm
from bytelm.corpus import ContiguousWindows, Corpus, RandomWindows
from bytelm.model import ByteLM, build_model
from bytelm.model.config import NextPatchConfig
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


def choose(model: ByteLM, h: Tensor, window: Tensor, noise: Tensor) -> Tensor:
    """The patch of largest ``log p + noise``, byte by byte; no noise: the greedy one."""
    prefix = window[:, :0]
    for k in range(window.shape[1]):
        logits = model.heads.step(h, window, prefix).log_softmax(-1)
        prefix = torch.cat((prefix, (logits + noise[:, k]).argmax(-1, keepdim=True)), dim=1)
    return prefix


@torch.inference_mode()
def evaluate(model: ByteLM, modules: dict[str, nn.Module | None], valid: ContiguousWindows, num_windows: int) -> None:
    """Print bits per byte, and the shares of drafted patches that agree with the law up to byte 1, 2, 3, 4."""
    chosen = torch.linspace(0, len(valid) - 1, num_windows).round().long().tolist()
    generator = torch.Generator().manual_seed(0)
    bits: dict[tuple[str, int], list[Tensor]] = {}
    agree: dict[tuple[str, int, str], list[Tensor]] = {}
    for i in range(0, len(chosen), 8):
        patches = batch(valid, chosen[i : i + 8])
        windows, targets = patches[:, :-1], patches[:, 1:]
        h = model(windows)
        noise = -torch.rand((*windows.shape, 256), generator=generator).log().neg().log()
        law = {name: choose(model, h.flatten(0, 1), windows.flatten(0, 1), scale * noise.flatten(0, 1))
               for name, scale in (("greedy", 0), ("sampled", 1))}  # fmt: skip
        nats = F.cross_entropy(model.heads(h, windows, targets).flatten(0, 2), targets.flatten(), reduction="none")
        bits.setdefault(("law", 0), []).append(nats[None])
        for name, module in modules.items():
            for n, guess in enumerate(
                guesses(module, h, windows) if module else [h[:, :-n] for n in range(1, DEPTH + 1)], 1
            ):
                w, t = windows[:, n:], targets[:, n:]
                nats = F.cross_entropy(model.heads(guess, w, t).flatten(0, 2), t.flatten(), reduction="none")
                bits.setdefault((name, n), []).append(nats[None])
                for way, scale in (("greedy", 0), ("sampled", 1)):
                    drafted = choose(model, guess.flatten(0, 1), w.flatten(0, 1), scale * noise[:, n:].flatten(0, 1))
                    same = drafted == law[way].unflatten(0, h.shape[:2])[:, n:].flatten(0, 1)
                    agree.setdefault((name, n, way), []).append(same)
    print(f"law itself: {torch.cat(bits['law', 0], 1).mean() / math.log(2):.3f} bits per byte")
    print(
        "| module | ahead | bits/byte | greedy: up to byte 1, 2, 3, 4 | mean bytes | each byte | sampled | mean bytes |"
    )
    for (name, n), nats_list in bits.items():
        if n == 0:
            continue
        row = [f"{torch.cat(nats_list, 1).mean() / math.log(2):.3f}"]
        for way in ("greedy", "sampled"):
            same = torch.cat(agree[name, n, way]).double()
            upto = same.cumprod(1)
            row += [" ".join(f"{x:.3f}" for x in upto.mean(0).tolist()), f"{upto.sum(1).mean():.2f}"]
            if way == "greedy":
                row.append(" ".join(f"{x:.3f}" for x in same.mean(0).tolist()))
        print(f"| {name} | {n} | {' | '.join(row)} |", flush=True)


def main() -> None:
    """Train where asked, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("valid")
    parser.add_argument("--train")
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--windows", type=int, default=64)
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
        windows = RandomWindows(
            Corpus.open(given.train, lm.encoding), length, seed=0, epoch=0, size=given.steps * given.batch
        )
        optimizers = {name: OPTIMIZER.build(module, given.steps) for name, module in modules.items()}
        seconds = dict.fromkeys(["body", *modules], 0.0)
        for step in range(given.steps):
            began = time.perf_counter()
            patches = batch(windows, list(range(step * given.batch, (step + 1) * given.batch)))
            with torch.no_grad():
                h = model(patches[:, :-1])
                logits = model.heads(h, patches[:, :-1], patches[:, 1:])
            seconds["body"] += time.perf_counter() - began
            losses = []
            for name, module in modules.items():
                began = time.perf_counter()
                value = loss(model, module, name, h, patches, logits)
                optimizer, schedule = optimizers[name]
                optimizer.zero_grad()
                value.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                losses.append(f"{name} {value.item():.3f}")
                seconds[name] += time.perf_counter() - began
            if step % 20 == 0 or step == given.steps - 1:
                print(step, *losses, {k: round(v) for k, v in seconds.items()}, flush=True)
    if model.next_patch is not None:
        modules["of the model"] = model.next_patch
    valid = ContiguousWindows(Corpus.open(given.valid, lm.encoding), length)
    evaluate(model, {"none: the state before": None, **modules}, valid, given.windows)


if __name__ == "__main__":
    main()
