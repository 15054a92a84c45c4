"""The roof of training: how fast matrices are multiplied."""

import torch

from bytelm.benchmarks.timing import seconds_per_call

_CPU_SIZES, _GPU_SIZES = (512, 1_024), (4_096, 8_192)


def measure_matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of the product of two square matrices, of the size at which it is fastest.

    A multiplication and an addition are two operations.

    Args:
        dtype: of matrices and product.
        device: where; on the CPU, all threads that torch uses.
    """
    return max(_rate(size, dtype, device) for size in (_CPU_SIZES if device.type == "cpu" else _GPU_SIZES))


def _rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode():
        torch.mm(a, b)
        return 2 * size**3 / min(seconds_per_call(lambda: torch.mm(a, b), device, least=0.1) for _ in range(2))
