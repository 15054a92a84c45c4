"""How much memory loading takes at its highest, against what the weights need in the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_checkpoints import TOKENS
from toy_tokenizer import with_tokenizer

from bytelm.hub.weights import export_weights
from bytelm.nn.four_bit import code_book

LINEARS = {"attn.q_proj": (1, 1), "attn.k_proj": (1, 1), "attn.v_proj": (1, 1), "attn.out_proj": (1, 1)}
LINEARS |= {"mlp.fc_in": (4, 1), "mlp.fc_out": (1, 4)}


def gptj_state(width, num_blocks, rows):
    """All tensors of a GPT-J, of ones."""
    state = {"transformer.wte.weight": (rows, width), "lm_head.weight": (rows, width), "lm_head.bias": (rows,)}
    state |= {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    for i in range(num_blocks):
        name = f"transformer.h.{i}"
        state |= {f"{name}.ln_1.{part}": (width,) for part in ("weight", "bias")}
        state |= {f"{name}.{linear}.weight": (m * width, n * width) for linear, (m, n) in LINEARS.items()}
        state |= {f"{name}.mlp.fc_in.bias": (4 * width,), f"{name}.mlp.fc_out.bias": (width,)}
    return {name: torch.ones(shape) for name, shape in state.items()}


def packed(state):
    """The same with the weights of linear layers in four bits, the rest in bfloat16."""
    found = {}
    for name, tensor in state.items():
        if not name.startswith("transformer.h.") or tensor.dim() == 1:
            found[name] = tensor.bfloat16()
            continue
        told = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(tensor.shape)}
        found[name] = torch.full((tensor.numel() // 2, 1), 0x5A, dtype=torch.uint8)
        found[f"{name}.absmax"] = torch.ones(tensor.numel() // 64)
        found[f"{name}.quant_map"] = code_book("nf4")
        state_bytes = list(json.dumps(told).encode())
        found[f"{name}.quant_state.bitsandbytes__nf4"] = torch.tensor(state_bytes, dtype=torch.uint8)
    return found


def write(folder, width, num_blocks, rows):
    """One GPT-J in every format."""
    config = {"model_type": "gptj", "n_embd": width, "n_layer": num_blocks, "n_head": width // 64, "rotary_dim": 32}
    config |= {"n_positions": 64, "vocab_size": rows}
    state = gptj_state(width, num_blocks, rows)
    total = sum(tensor.nbytes for tensor in state.values())
    for kind in ("safetensors", "shards", "bin", "four bits"):
        (folder / kind).mkdir(parents=True)
        with_tokenizer(folder / kind, TOKENS)
        (folder / kind / "config.json").write_text(json.dumps(config))
    export_weights(folder / "safetensors", state)
    export_weights(folder / "shards", state, total // 4)
    torch.save(state, folder / "bin" / "pytorch_model.bin")
    export_weights(folder / "four bits", packed(state))
    return total


CASES = {
    "safetensors": ("safetensors", "bfloat16", "dequantise"),
    "shards": ("shards", "bfloat16", "dequantise"),
    "bin": ("bin", "bfloat16", "dequantise"),
    "as written": ("safetensors", "float32", "dequantise"),
    "bin as written": ("bin", "float32", "dequantise"),
    "dequantised": ("four bits", "bfloat16", "dequantise"),
    "kept": ("four bits", "bfloat16", "keep"),
    "mapped": ("safetensors", "bfloat16", ""),
}
"""Folder, type on load, and what becomes of four bits."""

SMALL = 4_000_000
"""Bytes that reading takes whatever the size of the checkpoint."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux")
@pytest.mark.parametrize(
    ("width", "num_blocks", "rows", "megabytes"),
    [
        pytest.param(512, 4, 12_800, 100, marks=pytest.mark.slow),
        pytest.param(1024, 12, 50_400, 1000, marks=pytest.mark.slow),
    ],
)
def test_peak_of_loading(tmp_path, width, num_blocks, rows, megabytes):
    """Of checkpoints of 0.1 and 1 GB in float32; embedding and head have a fifth each, which is much.

    What counts is the highest resident size (``VmHWM``) above the size before. It has pages of files that are mapped,
    which the process does not own, so it can only be too high: a mapped file shows that the measure sees them.
    """
    write(tmp_path / "tiny", 64, 1, 272)
    total = write(tmp_path / "whole", width, num_blocks, rows)
    assert 0.9 < total / megabytes / 1e6 < 1.1
    cases = [(name, str(tmp_path / "whole" / folder), *rest) for name, (folder, *rest) in CASES.items()]
    script = Path(__file__).parent / "peak_loading.py"
    command = [sys.executable, script, tmp_path / "tiny", json.dumps(cases)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for name in CASES.keys() - {"kept", "mapped"}:
        share = 1 if CASES[name][1] == "float32" else 0.5
        assert found[name]["final"] == pytest.approx(share * total, rel=0.01), name
    for name, one in found.items():
        sys.stdout.write(f"{name}: peak {one['peak'] / 1e6:.0f} MB, weights {one['final'] / 1e6:.0f} MB\n")
    for name in CASES.keys() - {"mapped"}:
        assert 0.98 * found[name]["final"] < found[name]["peak"] < 1.15 * found[name]["final"] + SMALL, name
    assert found["mapped"]["peak"] > 2 * found["mapped"]["final"]
