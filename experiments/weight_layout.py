"""What a body's linear layers cost for a few rows: one by one or fused, stored by rows or by columns.

python experiments/weight_layout.py [--width 256] [--inner 704] [--blocks 6] [--dtype bfloat16]
"""

import argparse
import functools
import itertools

import torch
import torch.nn.functional as F

from bytelm.benchmarks.timing import median_ratio, seconds_per_call, take_turns


def matrices(shapes: list[tuple[int, int]], blocks: int, by_columns: bool, dtype: torch.dtype) -> list[torch.Tensor]:
    """Weights of every block; where ``by_columns``, those with more outputs than inputs lie so."""
    weights = [torch.randn(shape).to(dtype) for _ in range(blocks) for shape in shapes]
    return [w.t().contiguous().t() if by_columns and w.shape[0] > w.shape[1] else w for w in weights]


def products(weights: list[torch.Tensor], inputs: dict[int, torch.Tensor]) -> None:
    """All linear layers, one after the other."""
    for weight in weights:
        F.linear(inputs[weight.shape[1]], weight)


def main() -> None:
    """Print the time of all products of a body, and its ratio to separate layers stored by rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--inner", type=int, default=704)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    width, inner = options.width, options.inner
    separate = [(width, width), (width // 2, width), (width // 2, width), (width, width)]
    separate += [(inner, width), (inner, width), (width, inner)]
    fused = [(2 * width, width), (width, width), (2 * inner, width), (width, inner)]
    print("rows  layers    stored by   µs of a body   ratio")
    for rows in (1, 4, 16):
        inputs = {size: torch.randn(rows, size).to(dtype) for size in (width, inner)}
        cases = {}
        for (name, shapes), by_columns in itertools.product((("separate", separate), ("fused", fused)), (False, True)):
            weights = matrices(shapes, options.blocks, by_columns, dtype)
            call = functools.partial(products, weights, inputs)
            cases[name, by_columns] = functools.partial(seconds_per_call, call, torch.device("cpu"))
        with torch.inference_mode():
            for case in cases.values():
                case()
            runs = take_turns(cases, options.repeats)
        for (name, by_columns), seconds in runs.items():
            ratio = median_ratio(seconds, runs["separate", False])
            middle = sorted(seconds)[len(seconds) // 2] * 1e6
            print(f"{rows:4}  {name:8}  {'columns' if by_columns else 'rows':9} {middle:13.0f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
