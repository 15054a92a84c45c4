"""Prints by how many bytes the peak of memory rises while float32 checkpoints are read and kept, in several ways."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bytelm.hub.weights import export_weights, open_weights


def status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _converted(folder: Path) -> list[Tensor]:
    weights = open_weights(folder)
    return [weights.read(name, torch.bfloat16) for name in weights.names]


def _as_written(folder: Path) -> list[Tensor]:
    weights = open_weights(folder)
    return [weights.read(name) for name in weights.names]


def _mapped(folder: Path) -> list[Tensor]:
    return [tensor.to(torch.bfloat16) for tensor in load_file(folder / "model.safetensors").values()]


def _rise(read: Callable[[Path], list[Tensor]], folder: Path) -> int:
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept = read(folder)
    rise = status("VmHWM") - before
    assert kept
    return rise


def main(folder: Path) -> None:
    """Measure each format after a tiny checkpoint was read, which loads what reading needs."""
    tiny = {"weight": torch.zeros(4, 4)}
    export_weights(folder / "tiny", tiny)
    (folder / "tiny bin").mkdir()
    torch.save(tiny, folder / "tiny bin" / "pytorch_model.bin")
    for name in ("tiny", "tiny bin"):
        _converted(folder / name)
    rises = {
        f"{name} {kind}": _rise(read, folder / kind)
        for name, read, kind in (
            ("converted", _converted, "safetensors"),
            ("converted", _converted, "bin"),
            ("as written", _as_written, "safetensors"),
            ("as written", _as_written, "bin"),
            ("mapped", _mapped, "safetensors"),
        )
    }
    sys.stdout.write(json.dumps(rises))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
