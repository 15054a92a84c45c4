"""What a training run needs before it is started: operations, hours, memory of each GPU. All of it is arithmetic."""

from dataclasses import dataclass
from typing import Literal, get_args

from bytelm.benchmarks.accelerators import Accelerator
from bytelm.benchmarks.activations import (
    Activations,
    Precision,
    matrix_parameters,
    next_patch_products,
    product_bytes,
    stored_bytes,
)
from bytelm.benchmarks.operations import head_products, merger_products, operations_per_symbol
from bytelm.model.config import ModelConfig, NgramConfig

Layout = Literal["replicated", "sharded"]
"""Every GPU holds all weights, gradients and moments (one GPU, or DDP); or each holds its share (FSDP, full shard)."""


_INDEX = 8


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training run, as far as its cost depends on it.

    Attributes:
        model: what is trained, all of it.
        window: L, bytes read per window.
        batch_size: windows per forward and GPU.
        accumulate: forwards per step.
        num_gpus: that share a step.
        steps: of the optimiser.
        precision: ``trainer.precision``.
        read_rows: whether gradients of n-gram tables have the rows alone that were read (``optimizer.tables``).
        bucket_views: whether DDP keeps gradients in its buckets alone (``gradient_as_bucket_view``).
    """

    model: ModelConfig
    window: int
    batch_size: int
    accumulate: int
    num_gpus: int
    steps: int
    precision: Precision
    bucket_views: bool = False
    read_rows: bool = False

    @property
    def windows_per_step(self) -> int:
        """Windows that make one step, over all GPUs."""
        return self.batch_size * self.accumulate * self.num_gpus

    @property
    def symbols_per_step(self) -> int:
        """Symbols that the model reads in one step; as many are predicted."""
        return self.windows_per_step * self.window

    @property
    def symbols(self) -> int:
        """Symbols of the run."""
        return self.steps * self.symbols_per_step


@dataclass(frozen=True, kw_only=True)
class TrainingOperations:
    """Operations per symbol; a multiplication and an addition are two. Matrix products alone, as everywhere here.

    A backward pass has two products for each of the forward pass, one where the weight is frozen. Attention is causal
    and read as the half of all pairs of positions, forward and backward alike.

    Attributes:
        forward: of the forward pass: what :func:`~bytelm.benchmarks.operations.operations_per_symbol` counts, and the
            guesses of a next-patch module.
        learning: of forward and backward pass: what model FLOPs utilisation is of (Chowdhery et al. 2022,
            arXiv:2204.02311, appendix B).
        recomputed: added to them by activation checkpointing: a second forward pass of the blocks, each without its
            last product, whose output nothing of the backward pass asks for.
    """

    forward: float
    learning: float
    recomputed: float


def training_operations(model: ModelConfig, window: int) -> TrainingOperations:
    """Operations per symbol of windows of so many symbols."""
    law = model.laws[0]
    plain = operations_per_symbol(model, law, (window + model.patch) / 2)
    last = model.num_blocks * model.width * model.feedforward.inner
    outside = 2 * (merger_products(model) + head_products(model, law) + last) / model.patch
    trained, frozen = (2 * products / model.patch for products in next_patch_products(model))
    return TrainingOperations(
        forward=plain + trained + frozen,
        learning=3 * (plain + trained) + 2 * frozen,
        recomputed=plain - outside,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes of one GPU at one moment of a step.

    Attributes:
        moment: ``forward``: its end, with the gradients of the step before, or of the forwards before; ``loss``: the
            beginning of the backward pass; ``last block``, ``first block``: the backward pass there. The update needs
            less: AdamW is done in one pass, and makes nothing.
        weights: as they are stored, the share of this GPU.
        gathered: weights of other GPUs that are here for a while, and gradients on their way to them.
        gradients, moments: of AdamW, the share of this GPU.
        buckets: copies of gradients that DDP sends.
        casts: copies of weights in 16 bits that autocast makes.
        activations: what the backward pass needs, and what stands beside it.
    """

    moment: str
    weights: int
    gathered: int
    gradients: int
    moments: int
    buckets: int
    casts: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        held = self.weights + self.gathered + self.gradients + self.moments + self.buckets
        return held + self.casts + self.activations


def memory_moments(workload: Workload, layout: Layout, checkpointing: bool) -> list[TrainingMemory]:
    """What a step needs at each moment that may be its highest.

    The order of a step is Lightning's: gradients of the step before are freed after the forward pass, if it is the
    first of its step. DDP holds a second copy of the gradients in its buckets, unless they are views of it, which are
    never freed. Full sharding (FSDP2 with a unit for
    each block and one for the rest) has, beside its share, the weights of the rest and of two blocks, one at work and
    one on its way, and the gradients of one; this part is not measured, and what NCCL, CUDA and the allocator's
    fragments take is not in it.
    """
    model, stored = workload.model, stored_bytes(workload.precision)
    num_parameters, shards = model.num_parameters(), workload.num_gpus if layout == "sharded" else 1
    kept = Activations(
        config=model,
        positions=workload.window // model.patch,
        windows=workload.batch_size,
        precision=workload.precision,
    )
    mixed = product_bytes(workload.precision) if workload.precision.endswith("mixed") else 0
    ends = merger_products(model) + head_products(model, model.laws[0])
    casts = mixed * matrix_parameters(model)
    block_casts = mixed * (matrix_parameters(model) - ends - next_patch_products(model)[0]) // model.num_blocks
    share = stored * -(-num_parameters // shards)
    read = _bytes_read(workload, stored)
    dense = share - (stored * table_parameters(model) if workload.read_rows else 0)
    block = (model.num_body_parameters() - model.norm.num_parameters(model.width)) // model.num_blocks
    rest = num_parameters - model.num_blocks * block
    held = {
        "weights": share,
        "gathered": stored * (3 * block + rest) if shards > 1 else 0,
        "moments": 2 * share,
        "buckets": dense if layout == "replicated" and workload.num_gpus > 1 and not workload.bucket_views else 0,
    }
    inputs = model.num_blocks * kept.block_input()
    at_loss = inputs + kept.rest() if checkpointing else kept.total()
    blocks = inputs + kept.block() if checkpointing else model.num_blocks * kept.block()
    # With checkpointing, only autocast's own list holds the casts of blocks, and it ends with the forward pass.
    still_cast = casts - model.num_blocks * block_casts if checkpointing else casts
    at_work = block_casts if checkpointing else model.num_blocks * block_casts
    gradients = dense + workload.accumulate * read
    before = gradients - read if workload.accumulate > 1 or workload.bucket_views else 0
    moments = [
        ("forward", gradients, casts, at_loss + kept.logits()),
        ("loss", before, still_cast, at_loss + kept.loss_gradients()),
        ("last block", before, at_work, blocks + kept.block_gradients()),
        ("first block", gradients, block_casts, kept.block_input() + kept.block() + kept.block_gradients()),
    ]
    return [
        TrainingMemory(moment=name, gradients=gradients, casts=cast, activations=activations, **held)
        for name, gradients, cast, activations in moments
    ]


def table_parameters(model: ModelConfig) -> int:
    """Numbers in the rows of n-gram tables."""
    return sum(tables.num_in_rows(model.width) for tables, _ in _tables(model))


def _bytes_read(workload: Workload, stored: int) -> int:
    """Bytes of gradients of the rows that one forward reads, with their places; 0 where gradients are of whole tables.

    Args:
        workload: the run.
        stored: bytes per number.
    """
    positions, width = workload.batch_size * workload.window // workload.model.patch, workload.model.width
    reads = sum(
        times * tables.num_read * (stored * tables.row_numbers(width) + _INDEX)
        for tables, times in _tables(workload.model)
    )
    return positions * reads if workload.read_rows else 0


def _tables(model: ModelConfig) -> list[tuple[NgramConfig, int]]:
    """The tables, and how often each is read at a position: once by the merger, once by every head."""
    parts = ((getattr(model.merger, "tables", None), 1), (getattr(model.heads, "tables", None), model.patch))
    return [(tables, times) for tables, times in parts if tables is not None]


def peak_memory(workload: Workload, layout: Layout, checkpointing: bool) -> TrainingMemory:
    """The highest of :func:`memory_moments`."""
    return max(memory_moments(workload, layout, checkpointing), key=lambda moment: moment.total)


@dataclass(frozen=True, kw_only=True)
class PlannedLayout:
    """One way to run a workload.

    Attributes:
        layout: how the states lie on the GPUs.
        checkpointing: whether blocks are recomputed.
        memory: of each GPU, at its highest.
        fits: whether that is at most the GPU's memory.
        step_s: seconds of a step at the stated utilisation; what is recomputed comes on top.
        hours: of the run.
        update_s: least seconds of the update: AdamW reads four numbers per weight and writes three.
    """

    layout: Layout
    checkpointing: bool
    memory: TrainingMemory
    fits: bool
    step_s: float
    hours: float
    update_s: float | None


def plan_layouts(workload: Workload, gpu: Accelerator, utilisation: float) -> list[PlannedLayout]:
    """Every way to run a workload: replicated or (with several GPUs) sharded, without and with checkpointing.

    Args:
        workload: the run.
        gpu: each GPU.
        utilisation: share of the GPU's rate that matrix products reach where nothing is recomputed (model FLOPs
            utilisation).
    """
    operations = training_operations(workload.model, workload.window)
    several = workload.num_gpus > 1 and not workload.read_rows  # tables with such gradients cannot be sharded
    layouts = get_args(Layout) if several else ("replicated",)
    plans = []
    for layout in layouts:
        for checkpointing in (False, True):
            each = operations.learning + (operations.recomputed if checkpointing else 0)
            step_s = workload.symbols_per_step * each / (workload.num_gpus * gpu.flops * utilisation)
            memory = peak_memory(workload, layout, checkpointing)
            plans.append(
                PlannedLayout(
                    layout=layout,
                    checkpointing=checkpointing,
                    memory=memory,
                    fits=memory.total <= gpu.memory_bytes,
                    step_s=step_s,
                    hours=workload.steps * step_s / 3600,
                    update_s=None if gpu.bandwidth is None else 7 * memory.weights / gpu.bandwidth,
                )
            )
    return plans
