"""What GPUs have, by the data sheets of their makers."""

from collections.abc import Mapping
from dataclasses import dataclass

from bytelm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One GPU.

    The figures are those of the maker's data sheet: NVIDIA A100, H100, H200, L40S and DGX B200 (eight GPUs, divided by
    eight), the white paper of the Ada architecture, AMD Instinct MI300X. Rates of "sparse" products are not counted.

    Attributes:
        memory_bytes: of the sheet's decimal gigabytes. The driver reports up to 7 % more on some, and keeps some.
        flops: dense products of bfloat16 matrices with sums in float32, operations per second.
        bandwidth: of its memory, bytes per second; None where nobody said.
    """

    name: str
    memory_bytes: float
    flops: float
    bandwidth: float | None = None


def _sheet(name: str, gigabytes: float, teraflops: float, gigabytes_per_s: float) -> tuple[str, Accelerator]:
    return name, Accelerator(
        name=name, memory_bytes=gigabytes * 1e9, flops=teraflops * 1e12, bandwidth=gigabytes_per_s * 1e9
    )


ACCELERATORS: Mapping[str, Accelerator] = dict(
    (
        _sheet("a100-40gb", 40, 312, 1_555),
        _sheet("a100", 80, 312, 2_039),
        _sheet("h100", 80, 989, 3_350),
        _sheet("h200", 141, 989, 4_800),
        _sheet("b200", 180, 2_250, 8_000),
        _sheet("l40s", 48, 362, 864),
        _sheet("rtx4090", 24, 165, 1_008),
        _sheet("mi300x", 192, 1_307, 5_300),
    )
)


def get_accelerator(name: str) -> Accelerator:
    """The GPU of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ACCELERATORS:
        raise ConfigError(f"found {name!r}, expected one of {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]
