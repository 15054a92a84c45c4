"""How fast the native core reads matrices in bfloat16 and int8, from the processor's cache and from memory.

    python experiments/native_rows.py --threads 2

For each number of rows: gigabytes of the matrix per second, the median of turns, and how much less time than bfloat16
int8 takes, and how much more torch's product in bfloat16, in the same turn.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bytelm.benchmarks.timing import median_ratio, take_turns
from bytelm.nn import native

SHAPES = {"cache": (96, 4096), "memory": (16_384, 4096), "memory, wide": (4096, 16_384)}
"""Outputs and inputs; those of memory are layers of GPT-J 6B, of which there are enough that no cache holds them."""

_BYTES = 600_000_000


def product(matrices: list[Tensor], rows: int, threads: int, calls: int) -> Callable[[], float]:
    """A call that multiplies each matrix with so many rows, and gives the seconds of one product."""
    core = native.core
    assert core is not None
    outputs, inputs = matrices[0].shape
    x = torch.randn(rows, inputs).to(torch.bfloat16)
    y = torch.empty(rows, outputs, dtype=torch.bfloat16)
    scale = torch.rand(outputs)

    def run() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            for matrix in matrices:
                address = scale.data_ptr() if matrix.dtype == torch.int8 else 0
                core.linear(x.data_ptr(), matrix.data_ptr(), address, 0, y.data_ptr(), rows, outputs, inputs, threads)
        return (time.perf_counter() - began) / (calls * len(matrices))

    return run


def torchs(matrices: list[Tensor], rows: int, calls: int) -> Callable[[], float]:
    """The same through torch."""
    x = torch.randn(rows, matrices[0].shape[1]).to(torch.bfloat16)

    def run() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            for matrix in matrices:
                torch.nn.functional.linear(x, matrix)
        return (time.perf_counter() - began) / (calls * len(matrices))

    return run


def main() -> None:
    """Print a line for each place and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    if native.core is None:
        raise SystemExit("the native core was not built")
    torch.set_num_threads(given.threads)
    for place, (outputs, inputs) in SHAPES.items():
        number = 1 if place == "cache" else _BYTES // (2 * outputs * inputs)
        codes = [torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8) for _ in range(number)]
        plain = [matrix.to(torch.bfloat16) for matrix in codes]
        for rows in (1, 2, 4, 8, 16):
            calls = 50 if place == "cache" else 1
            kinds = {"bf16": plain, "int8": codes}
            cases = {kind: product(kinds[kind], rows, given.threads, calls) for kind in kinds}
            runs = take_turns({**cases, "torch": torchs(plain, rows, calls)}, given.turns)
            rates = [kinds[kind][0].nbytes / statistics.median(runs[kind]) / 1e9 for kind in kinds]
            faster, slower = median_ratio(runs["bf16"], runs["int8"]), median_ratio(runs["torch"], runs["bf16"])
            print(
                f"{place:13} rows {rows}: bf16 {rates[0]:5.1f} GB/s, int8 {rates[1]:5.1f} GB/s, "
                f"int8 {faster:.2f} times, torch {slower:.2f} times"
            )


if __name__ == "__main__":
    main()
