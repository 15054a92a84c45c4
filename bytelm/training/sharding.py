"""Weights, gradients and moments in shards, one for each process: FSDP2 behind Lightning's ModelParallelStrategy."""

import contextlib
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed.checkpoint as dcp
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from bytelm.errors import CheckpointError, ConfigError
from bytelm.model.build import build_model
from bytelm.model.byte_lm import ByteLM
from bytelm.training.checkpoint_io import (
    file_digest,
    has_digest,
    partial_path,
    read_plain,
    remove,
    save_hashed,
    sync_folder,
    verify,
    write_digests,
)
from bytelm.training.parallel import agree_on, exchanged, in_first_process, process_number
from bytelm.training.shard_reader import ShardPlanner, ShardReader

META_FILE = "meta.pt"
"""What Lightning calls the file beside the shards, with all that is no tensor of weights or of an optimiser."""


class ShardedStrategy(ModelParallelStrategy):
    """``trainer.strategy: sharded``: every process keeps a part of each parameter, and gathers blocks as it needs them.

    Each block of the body is one group of ``fully_shard`` (Zhao et al. 2023, arXiv:2304.11277); embeddings, n-gram
    tables and heads are another, which is whole from the first use in a step to its end. Checkpoints are
    folders with a file from every process, complete or not there, and with digests, as those of one process are; they
    can be read with any number of processes.

    Args:
        shards: processes that have all weights between them; every so many have the same, and add up their gradients.
            All processes by default. The GPUs of a node, so that weights do not travel between nodes.
        process_group_backend: of ``torch.distributed``, by default what suits the devices.
        timeout: of a collective operation.
    """

    def __init__(
        self,
        shards: int | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        if shards is not None and shards < 1:
            raise ConfigError(f"trainer.strategy.shards: found {shards}, expected at least 1")
        self.shards = shards

    def setup_environment(self) -> None:
        """Join the other processes.

        Raises:
            ConfigError: the processes cannot be divided into groups of ``shards``.
        """
        processes = self.num_nodes * self.num_processes
        shards = self.shards or processes
        if processes % shards:
            raise ConfigError(f"trainer.strategy.shards: found {shards}, expected a divisor of {processes} processes")
        self._data_parallel_size, self._tensor_parallel_size = processes // shards, shards
        super().setup_environment()

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every process has windows of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def setup(self, trainer: L.Trainer) -> None:
        """Make the optimiser, for shards."""
        if not isinstance(getattr(self.lightning_module, "model", None), FSDPModule):
            raise ConfigError("trainer.strategy: found sharded, expected it with a byte model only")
        # Weights that are gathered in inference mode could not be trained with after it.
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        super().setup(trainer)

    def shard(self, model: ByteLM) -> None:
        """Leave a shard of each parameter in this process; names stay."""
        mesh = self.device_mesh if self.device_mesh.shape[0] > 1 else self.device_mesh["tensor_parallel"]
        shard_weights(model, mesh)

    @contextlib.contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Add up gradients of an accumulation within the groups of ``shards`` alone."""
        assert self.lightning_module is not None
        model = self.lightning_module.model
        assert isinstance(model, FSDPModule)
        model.set_requires_all_reduce(False)
        try:
            yield
        finally:
            model.set_requires_all_reduce(True)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state by names of parameters; of an optimiser that made no step, what it will begin with."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        fresh = not optimizer.state
        state: dict[str, Any] = super().optimizer_state(optimizer)
        if fresh:  # torch made a step to have a state to save
            for of_parameter in state["state"].values():
                of_parameter["step"].zero_()
            optimizer.state.clear()
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a folder of shards; all processes must call.

        Raises:
            CheckpointError: it cannot be written; what was there before is still there.
        """
        path = Path(self.broadcast(filepath))
        states = {f"optimizer_{i}": state for i, state in enumerate(checkpoint.pop("optimizer_states", []))}
        try:
            write_shards(path, {"state_dict": checkpoint.pop("state_dict"), **states}, checkpoint)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a folder of shards, or a file that an unsharded run wrote; all processes must call.

        Raises:
            CheckpointError: it was cut or altered after it was written, or asks for code to be run.
        """
        path = Path(self.broadcast(checkpoint_path))
        error = None
        if in_first_process(lambda: has_digest(path)):
            try:
                verify(path, self.global_rank, self.world_size)
            except CheckpointError as found:
                error = found
        agree_on(error)
        if path.is_dir():
            self._load_own(path)
            return read_plain(path / META_FILE)
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        self._load_whole(loaded)
        return loaded

    def _load_own(self, path: Path) -> None:
        """Read the shards of this process. Lightning's way of it would run code that the index asks for."""
        assert self.lightning_module is not None
        assert self.model is not None
        weights = {"state_dict": get_model_state_dict(self.model)}
        read_shards(path, weights)
        self.model.load_state_dict(weights["state_dict"], strict=self.lightning_module.strict_loading)
        for number, optimizer in enumerate(self.optimizers):
            key = f"optimizer_{number}"
            state = {key: get_optimizer_state_dict(self.model, optimizer)}
            read_shards(path, state)
            options = StateDictOptions(cpu_offload=True)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=state[key], options=options)

    def _load_whole(self, loaded: dict[str, Any]) -> None:
        """Take the shards of this process out of whole weights and moments."""
        assert self.lightning_module is not None
        self.lightning_module.on_load_checkpoint(loaded)  # it refuses those of another model
        with torch.no_grad():
            for name, parameter in self.lightning_module.named_parameters():
                parameter.copy_(_as(parameter, loaded["state_dict"][name]))
        for optimizer, state in zip(self.optimizers, loaded["optimizer_states"], strict=False):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {
                number: {key: _as(parameters[number], value) for key, value in found.items()}
                for number, found in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": moments})


StrategyRegistry.register("sharded", ShardedStrategy, description="FSDP2; weights, gradients and moments in shards")


def _as(parameter: Tensor, value: Any) -> Any:
    """A tensor of a parameter's shape, sharded as the parameter is; anything else as it is."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


def shard_weights(model: ByteLM, mesh: DeviceMesh) -> None:
    """``fully_shard`` on every block, on ``next_patch``, and on all the rest as one group; names of parameters stay.

    The heads are called by themselves, after the body, so the group that they are in stays whole until the backward
    pass is over. ``next_patch`` is a group of its own because it is trained where the body has no gradients, too: they
    are exchanged for groups through which a gradient goes back.

    Args:
        model: whose parameters become DTensors.
        mesh: of one axis, along which they are sharded; or of two, along the first of which they are the same.
    """
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    if model.next_patch is not None:
        fully_shard(model.next_patch, mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


def is_sharded(model: object) -> bool:
    """Whether :func:`shard_weights` was applied."""
    return isinstance(model, FSDPModule)


def whole_model(model: ByteLM) -> ByteLM | None:
    """A model that can be used by one process alone; all processes must call.

    Returns:
        The model itself; if it is sharded, in process 0 a copy on the CPU, and None in the others.
    """
    if not is_sharded(model):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if process_number() > 0:
        return None
    whole = build_model(model.config, device="meta")
    whole.load_state_dict(weights, assign=True)
    return whole.eval()


def write_shards(path: Path, tensors: dict[str, Any], rest: dict[str, Any]) -> None:
    """Write a folder of shards with its digests; it gets its name when it is complete. All processes must call.

    Args:
        path: its name.
        tensors: trees of tensors and DTensors, of which each process writes what it has.
        rest: what process 0 writes beside them.
    Raises:
        OSError: it cannot be written; all processes raise.
    """
    partial = partial_path(path)
    in_first_process(lambda: _empty(partial))
    try:
        _write_own(partial, tensors)
        error, digests = None, _own_digests(partial)
    except OSError as raised:
        error, digests = raised, {}
    try:
        agree_on(error)
        written = {name: digest for own in exchanged(digests) for name, digest in own.items()}
        in_first_process(lambda: _finish(path, partial, written, rest))
    finally:
        in_first_process(lambda: shutil.rmtree(partial, ignore_errors=True))


def _empty(folder: Path) -> None:
    remove(folder)
    folder.mkdir(parents=True)


def _write_own(folder: Path, tensors: dict[str, Any]) -> None:
    try:
        dcp.save(tensors, storage_writer=dcp.FileSystemWriter(folder))
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        raise next((cause for cause in causes if isinstance(cause, OSError)), OSError(str(causes[0]))) from error


def _own_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that this process wrote; process 0 has written the index, too."""
    number = process_number()
    names = [path.name for path in folder.glob(f"__{number}_*.distcp")] + ([".metadata"] if number == 0 else [])
    return {name: file_digest(folder / name) for name in names}


def _finish(path: Path, partial: Path, digests: dict[str, str], rest: dict[str, Any]) -> None:
    with (partial / META_FILE).open("wb") as file:
        digests = {**digests, META_FILE: save_hashed(rest, file)}
        file.flush()
        os.fsync(file.fileno())
    sync_folder(partial)
    remove(path)
    write_digests(path, digests)
    partial.rename(path)
    sync_folder(path.parent)


def read_shards(path: Path, tensors: dict[str, Any]) -> None:
    """Fill tensors from a folder of shards, whatever processes wrote it; all processes must call.

    Raises:
        CheckpointError: it cannot be read, has no such tensors, or asks for code to be run.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*single process.*")
            dcp.load(tensors, storage_reader=_open_shards(path), planner=ShardPlanner())
    except CheckpointException as error:
        raise _shard_error(path, [cause for cause, _ in error.failures.values()]) from None
    except (OSError, RuntimeError) as error:
        raise _shard_error(path, [error]) from None


def _open_shards(path: Path) -> ShardReader:
    """What reads a folder of shards; where one process is refused its index, all are."""
    reader, error = None, None
    try:
        reader = ShardReader(path)
    except CheckpointError as found:
        error = found
    agree_on(error)
    assert reader is not None
    return reader


def _shard_error(path: Path, causes: Sequence[BaseException]) -> CheckpointError:
    for cause in causes:
        if isinstance(cause, CheckpointError):
            return cause
    reason = " ".join(str(causes[0]).split()) or type(causes[0]).__name__
    return CheckpointError(f"{path}: {reason:.200}, expected the shards of the model")
