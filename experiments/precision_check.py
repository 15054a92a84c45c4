"""Which precision pays on this processor: matrix products of a small model's size in fp32 and bf16.

python experiments/precision_check.py
"""

import time

import torch


def gflops(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Rate of (2048, 256) x (256, 1024) products."""
    a, b = torch.randn(2048, 256, dtype=dtype), torch.randn(256, 1024, dtype=dtype)
    for _ in range(3):
        a @ b
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        a @ b
        runs += 1
    return 2 * 2048 * 256 * 1024 * runs / (time.perf_counter() - began) / 1e9


def main() -> None:
    """Print one line per precision, and the setting that follows."""
    found = {dtype: gflops(dtype) for dtype in (torch.float32, torch.bfloat16)}
    for dtype, rate in found.items():
        print(f"{dtype}: {rate:.0f} GFLOP/s with {torch.get_num_threads()} threads")
    better = "bf16-mixed" if found[torch.bfloat16] > found[torch.float32] else "32-true"
    print(f"--trainer.precision {better}")


if __name__ == "__main__":
    main()
