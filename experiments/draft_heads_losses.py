"""What draft heads should be trained on: variants side by side on one frozen toy model of LLaMA's layout.

python experiments/draft_heads_losses.py TEXTS --steps 1000 --head-steps 200

Every eighth document of TEXTS is held out. Tokens are bytes. A variant is its target, ``data`` (the tokens of the text)
or ``law`` (the probabilities that the frozen model itself gives there), and the unembedding, ``shared`` or ``own``. The
same windows in the same order for all variants of a seed.
"""

import argparse

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bytelm.corpus import iter_documents
from bytelm.metrics import DraftAgreement
from bytelm.model import ByteLM, ModelConfig, build_model
from bytelm.model.build import add_draft_heads
from bytelm.model.byte_lm import cross_entropy, draft_nats
from bytelm.model.ends import DraftHeadsConfig
from bytelm.training import OptimizerConfig

NUM_HEADS, WINDOW, BATCH = 4, 64, 16
CONFIG = {
    "width": 128,
    "num_blocks": 3,
    "attention": {"num_heads": 4, "num_kv_heads": 2, "head_width": 32},
    "feedforward": {"inner": 384},
    "merger": {"kind": "token", "num_rows": 256},
    "heads": {"kind": "lm", "num_rows": 256},
    "patch": 1,
    "context": WINDOW + 1,
}


def batches(text: Tensor, steps: int, seed: int, length: int) -> list[Tensor]:
    """Windows of a text, drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    begins = torch.randint(len(text) - length, (steps, BATCH, 1), generator=generator)
    return [text[b + torch.arange(length)] for b in begins]


def train_model(text: Tensor, steps: int) -> ByteLM:
    """The model that is frozen."""
    model = build_model(ModelConfig.from_dict(CONFIG), 0)
    optimizer, schedule = OptimizerConfig(lr=2e-3, warmup_steps=50).build(model, steps)
    for windows in batches(text, steps, 0, WINDOW + 1):
        loss = cross_entropy(*model.predict(windows)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def train_heads(model: ByteLM, target: str, unembedding: str, text: Tensor, steps: int, lr: float, seed: int) -> None:
    """Give the model draft heads of a variant."""
    heads = add_draft_heads(model, DraftHeadsConfig.from_dict({"num_heads": NUM_HEADS, "unembedding": unembedding}))
    optimizer, schedule = OptimizerConfig(lr=lr, warmup_steps=20).build(heads, steps)
    for windows in batches(text, steps, seed, WINDOW):
        logits, law = model.predict_drafts(windows)
        if target == "law":
            loss = draft_nats(logits, law).mean()
        else:
            later = windows[:, 2:].unfold(1, NUM_HEADS, 1).long()
            loss = F.cross_entropy(logits[:, : later.shape[1]].flatten(0, 2), later.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def measure(model: ByteLM, text: Tensor) -> dict[str, list[float]]:
    """The shares of :class:`~bytelm.metrics.DraftAgreement` on consecutive windows."""
    agreement = DraftAgreement(NUM_HEADS, 256)
    for windows in text[: len(text) // WINDOW * WINDOW].view(-1, WINDOW)[:256].split(32):
        logits, law = model.predict_drafts(windows)
        agreement.update(logits.argmax(-1), law.argmax(-1))
    return {name: share.flatten().tolist() for name, share in agreement.compute().items()}


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--head-steps", type=int, default=200)
    parser.add_argument("--lr", type=float, nargs="+", default=[3e-2, 1e-2])
    parser.add_argument("--variants", nargs="+", default=["law:shared", "data:shared", "law:own", "data:own"])
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    documents = [np.frombuffer(d.text.encode(), np.uint8) for d in iter_documents(options.texts)]
    kept = [np.concatenate([d for i, d in enumerate(documents) if (i % 8 == 0) == held]) for held in (False, True)]
    train, valid = (torch.from_numpy(text.astype(np.int64)) for text in kept)
    model = train_model(train, options.steps)
    for variant in options.variants:
        for lr in options.lr:
            for seed in range(1, options.seeds + 1):
                target, _, unembedding = variant.partition(":")
                train_heads(model, target, unembedding, train, options.head_steps, lr, seed)
                shares = measure(model, valid)
                print(f"{variant} lr {lr} seed {seed}: ", end="")
                print("leading", *(f"{x:.3f}" for x in shares["leading"]), end=" ")
                print("heads", *(f"{x:.3f}" for x in shares["acceptance"]), flush=True)
    for name in ("constant", "untrained"):
        print(name, *(f"{x:.3f}" for x in shares[name]))


if __name__ == "__main__":
    main()
