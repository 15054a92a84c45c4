"""Prints by how many bytes the peak of memory rises while checkpoints are loaded, and how many the models then have."""

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peak_memory import status
from safetensors.torch import load_file
from torch import Tensor

from bytelm.hub.family_folder import load_family


def num_bytes(tensors: list[Tensor]) -> int:
    """Memory behind tensors, each once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _load(folder: Path, dtype: str, four_bit: str) -> list[Tensor]:
    model = load_family(folder, dtype=getattr(torch, dtype), four_bit=four_bit).model
    return [*model.parameters(), *model.buffers()]


def _mapped(folder: Path, dtype: str, four_bit: str) -> list[Tensor]:
    return [tensor.to(getattr(torch, dtype)) for tensor in load_file(folder / "model.safetensors").values()]


def _rise(load: Callable[[Path, str, str], list[Tensor]], folder: Path, dtype: str, four_bit: str) -> dict[str, int]:
    """``VmHWM`` counts all pages, so that the rise is at least that of the memory which the process owns."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not there to be taken unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept = load(folder, dtype, four_bit)
    return {"peak": status("VmHWM") - before, "final": num_bytes(kept)}


def main(tiny: Path, cases: list[Any]) -> None:
    """Measure each case after a small one of its kind, which loads the code that loading needs.

    Of three times the lowest counts: holes that malloc leaves differ from time to time and only add to a peak.
    """
    found = {}
    for name, folder, dtype, four_bit in cases:
        load = _mapped if name == "mapped" else _load
        _rise(load, tiny / Path(folder).name, dtype, four_bit)
        rises = [_rise(load, Path(folder), dtype, four_bit) for _ in range(3)]
        found[name] = min(rises, key=lambda rise: rise["peak"])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
