"""Whether `bytelm eval` and lm-evaluation-harness' own class for transformers say the same of the same checkpoints.

Toy checkpoints with random weights in the formats of GPT-J, GPT-2 and LLaMA, written by transformers with the BPE files
of GPT-2; every task that comes with the package; each request's log-likelihood, and each metric, of both. The
perplexities of texts are compared with `score`, too.

python experiments/harness_parity.py DATA/gpt2_bpe --out FOLDER
"""

import argparse
import json
import math
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}  # read on import
warnings.simplefilter("ignore")

import torch  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    GPT2Config,
    GPT2Tokenizer,
    GPTJConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from bytelm.evaluation import harness  # noqa: E402
from bytelm.evaluation.local_items import read_items  # noqa: E402

TOKENS, END, CONTEXT, WIDTH = 50_257, 50_256, 1_024, 64
TOLERANCE = 1e-4
Request = tuple[str, int, int]
"""Task, item, and which of its requests."""


def configs() -> dict[str, PreTrainedConfig]:
    """The three families; GPT-J's table has more rows than there are tokens, as the published one."""
    ends = {"bos_token_id": END, "eos_token_id": END}
    gpt = {"n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, **ends}
    llama = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, **ends}
    return {
        "gptj": GPTJConfig(vocab_size=50_400, rotary_dim=8, **gpt),
        "gpt2": GPT2Config(vocab_size=TOKENS, **gpt),
        "llama": LlamaConfig(vocab_size=TOKENS, num_key_value_heads=2, max_position_embeddings=CONTEXT, **llama),
    }


def write(folder: Path, config: PreTrainedConfig, bpe: Path) -> None:
    """A checkpoint whose logits are of order 1, so that answers differ."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, WIDTH**-0.5)
        if config.vocab_size > TOKENS:
            # As training leaves rows without a token: the harness gives them their share, and our law none.
            model.lm_head.bias[TOKENS:] = -30
    model.save_pretrained(folder)
    GPT2Tokenizer.from_pretrained(bpe).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(bpe / name, folder / name)


def answers(results: dict[str, Any]) -> tuple[dict[Request, tuple[float, bool]], dict[Request, str]]:
    """Log-likelihood of each request, and whether it was greedy; the text of each that generates."""
    likelihoods, texts = {}, {}
    for task, samples in results["samples"].items():
        for sample in samples:
            for n, (value,) in enumerate(sample["resps"]):
                key = task, sample["doc_id"], n
                if isinstance(value, str):
                    texts[key] = value.rstrip("\ufffd")  # what a limit leaves of a character is no text of ours
                else:
                    pair = value if isinstance(value, list | tuple) else (value, False)
                    likelihoods[key] = float(pair[0]), str(pair[1]) == "True"
    return likelihoods, texts


def check_perplexities(ours: "harness.BytelmLM", rows: list[dict[str, Any]]) -> float:
    """The largest relative difference of the perplexities of texts to those of `score`."""
    worst = 0.0
    for task in ("bytelm_text_en", "bytelm_text_ja"):
        items = read_items(config_source=str(harness.TASKS / task), data_file=f"{task}.jsonl")["test"]
        texts = [item["text"] for item in items]
        total = ours.lm.score(texts).total
        words = sum(len(re.split(r"\s+", text)) for text in texts)
        found = {row["metric"]: row["value"] for row in rows if row["task"] == task}
        expected = {"bits_per_byte": total.bits_per_byte, "byte_perplexity": 2**total.bits_per_byte}
        if "word_perplexity" in found:
            expected["word_perplexity"] = math.exp(total.nats / words)
        assert found.keys() == expected.keys()
        worst = max(worst, *(abs(value / expected[metric] - 1) for metric, value in found.items()))
    return worst


def compare(folder: Path) -> dict[str, Any]:
    """Both classes on all tasks."""
    ours = harness.BytelmLM(folder, batch_size=4)
    theirs: Any = HFLM(pretrained=str(folder), batch_size=4, device="cpu", dtype="float32")
    tasks = ["bytelm_all"]
    results = [harness.evaluate(lm, harness.find_tasks(tasks), bootstrap=0) for lm in (ours, theirs)]
    (found, texts), (expected, their_texts) = map(answers, results)
    assert found.keys() == expected.keys()
    assert texts.keys() == their_texts.keys()
    rows = [{(row["task"], row["metric"]): row["value"] for row in harness.rows_of(result)} for result in results]
    differences = [abs(found[key][0] - expected[key][0]) for key in found]
    return {
        "checkpoint": folder.name,
        "tasks": len(results[0]["samples"]),
        "requests": len(found),
        "largest_difference_nats": max(differences),
        "same_greedy": sum(found[key][1] == expected[key][1] for key in found),
        "texts": len(texts),
        "same_texts": sum(texts[key] == their_texts[key] for key in texts),
        "metrics": len(rows[0]),
        "largest_relative_difference_of_metrics": max(
            abs(rows[0][key] - rows[1][key]) / max(abs(rows[1][key]), 1) for key in rows[0]
        ),
        "largest_relative_difference_to_score": check_perplexities(ours, harness.rows_of(results[0])),
    }


def main() -> int:
    """Print a line of JSON for each checkpoint; 1 if one is not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bpe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    well = True
    for name, config in configs().items():
        write(given.out / name, config, given.bpe)
        found = compare(given.out / name)
        print(json.dumps(found), flush=True)
        well &= found["largest_difference_nats"] < TOLERANCE and found["same_greedy"] == found["requests"]
        well &= found["same_texts"] == found["texts"]
        well &= found["largest_relative_difference_to_score"] < TOLERANCE
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
