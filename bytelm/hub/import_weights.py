"""Their tensors into our modules, and back: every tensor used or refused by name, every parameter filled."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bytelm.errors import CheckpointError, ConfigError
from bytelm.hub.families import Entry, Family, Layout, is_square_mask, num_pairs, recognise
from bytelm.hub.four_bit_format import FourBitTensors
from bytelm.model.build import build_model, fill_buffers, tie_head
from bytelm.model.byte_lm import ByteLM
from bytelm.model.config import AlibiConfig, ModelConfig
from bytelm.nn.four_bit import FourBitFusedLinear, FourBitLinear, ReorderedLinear
from bytelm.nn.fused import FusedLinear
from bytelm.nn.linear import Linear
from bytelm.nn.position import alibi_slopes


@runtime_checkable
class Tensors(Protocol):
    """Weights that are read one by one."""

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Of one tensor."""
        ...

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, converted where a type is given."""
        ...

    def where(self, name: str) -> Path:
        """The file it is in."""
        ...


@dataclasses.dataclass(frozen=True)
class Imported:
    """A model from another family's checkpoint.

    Attributes:
        model: ours.
        family: whose.
    """

    model: ByteLM
    family: Family


def import_model(
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    vocab_size: int | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    four_bit: type[FourBitLinear] | None = None,
    lay_out: Callable[[nn.Module], None] = lambda model: None,
) -> Imported:
    """Build the model that a ``config.json`` describes and fill it, tensor by tensor.

    Args:
        config: of the checkpoint.
        tensors: of the checkpoint.
        vocab_size: V, ids that have a token, of the tokenizer; the law is one over these alone. Default: all rows.
        dtype: of the weights; default that of the file's embedding.
        device: where they go.
        four_bit: the kind of layer in which weights of the blocks that are in four bits stay so; default: they are
            dequantised.
        lay_out: called with the model whenever one more tensor is filled; may change how weights lie in memory.
    Raises:
        CheckpointError: an unknown family; a tensor that is missing, has another shape or type, or has no place.
    """
    family = recognise(config, tensors.names)
    ours = family.config(config)
    if ours.num_blocks > len(tensors.names):
        raise CheckpointError(
            f"config.json: found {ours.num_blocks} blocks, expected at most {len(tensors.names)}, one for each tensor"
        )
    if _sees_whole_prompt(family, tensors):
        ours = dataclasses.replace(ours, prompt="prefix")
    if vocab_size is not None:
        ours = _with_vocabulary(ours, vocab_size)
    _check_slopes(ours, tensors)
    model = fill_model(ours, family, tensors, dtype=dtype, device=device, four_bit=four_bit, lay_out=lay_out)
    return Imported(model, family)


def fill_model(
    config: ModelConfig,
    family: Family,
    tensors: Tensors,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    four_bit: type[FourBitLinear] | None = None,
    lay_out: Callable[[nn.Module], None] = lambda model: None,
) -> ByteLM:
    """Build a model and fill it by the table of a family, tensor by tensor; the arguments are those of
    :func:`import_model`.

    Raises:
        CheckpointError: a tensor that is missing, has another shape or type, or has no place.
    """
    model = build_model(config, device="meta")
    found = _Names(family, config, tensors)
    dtype, device = dtype or _file_dtype(found), torch.device(device)
    parameters = dict(model.named_parameters())
    kept = {} if four_bit is None else {name: four_bit for name in parameters if found.stays_in_four_bits(name)}
    # Largest first: what a tensor needs for a moment beside its own room is much only while the model is small.
    for name, parameter in sorted(parameters.items(), key=lambda item: -item[1].numel()):
        if name not in kept:
            _assign(model, name, _filled(found, name, parameter.shape, dtype, device))
            tie_head(model)
            lay_out(model)
    for name, kind in kept.items():
        owner = name.removesuffix(".weight")
        model.set_submodule(owner, _four_bit_layer(found, name, model.get_submodule(owner), kind, dtype, device))
    found.refuse_unused()
    fill_buffers(model, device)
    return model.eval()


def unmatched(config: ModelConfig, family: Family, tensors: Tensors) -> tuple[list[str], dict[str, list[str]]]:
    """What a table leaves over, both ways: tensors of the file that it does not name, and of each parameter of the
    model that it does not fill the names that the file lacks (none where the table has no line for it).
    """
    found, places = _Names(family, config, tensors), dict[str, list[str]]()
    for name, _ in build_model(config, device="meta").named_parameters():
        theirs = [theirs for theirs, _ in found.theirs(name)] if found.knows(name) else []
        lacking = [one for one in theirs if one not in tensors.names]
        found.used.update(theirs)
        if lacking or not theirs:
            places[name] = lacking
    return found.unused(), places


def export_tensors(model: ByteLM, family: Family) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model under the names and in the layout of a family; the inverse of :func:`import_model`.

    Raises:
        CheckpointError: the model has layers in four bits.
    """
    if any(isinstance(layer, FourBitLinear) for layer in model.modules()):
        raise CheckpointError("model: has layers in four bits, expected one whose weights were dequantised")
    config, parameters = model.config, dict(model.named_parameters())
    for name, block, entry in _places(family, config):
        if name not in parameters:
            continue
        whole, begin = parameters[name].detach(), 0
        sizes = _part_sizes(config, entry, whole.shape[0])
        for (theirs, layout), size in zip(entry.theirs, sizes, strict=True):
            part = whole[begin : begin + size]
            begin += size
            yield theirs.format(i=block), _to_theirs(part, layout, config)


class _Names:
    """Which tensors of theirs make each of ours, and which of them were asked for."""

    def __init__(self, family: Family, config: ModelConfig, tensors: Tensors) -> None:
        self.family, self.config, self.tensors = family, config, tensors
        self._entries = {name: (block, entry) for name, block, entry in _places(family, config)}
        self._bare = not any(name.startswith(family.prefix) for name in tensors.names)
        self._four_bit = tensors.four_bit if isinstance(tensors, FourBitTensors) else frozenset[str]()
        self.used: set[str] = set()

    def theirs(self, ours: str) -> list[tuple[str, Layout]]:
        """Names in the file, with layouts; what was quantised lies as in a linear layer, whatever it was before."""
        if ours not in self._entries:
            raise CheckpointError(f"parameter {ours} has no place in the table of {self.family.name}")
        block, entry = self._entries[ours]
        names = [(name.format(i=block), layout) for name, layout in entry.theirs]
        if self._bare:
            names = [(name.removeprefix(self.family.prefix), layout) for name, layout in names]
        return [(name, "rows" if layout == "columns" and self.in_four_bits(name) else layout) for name, layout in names]

    def knows(self, ours: str) -> bool:
        """Whether the table has a line for a parameter."""
        return ours in self._entries

    def in_four_bits(self, theirs: str) -> bool:
        """Whether a tensor of the file is."""
        return theirs in self._four_bit

    def stays_in_four_bits(self, ours: str) -> bool:
        """Whether a parameter is a weight of the blocks of which the file has a part in four bits."""
        return ours.startswith("blocks.") and any(self.in_four_bits(name) for name, _ in self.theirs(ours))

    def entry(self, ours: str) -> Entry:
        """The entry of one tensor of ours."""
        return self._entries[ours][1]

    def refuse_unused(self) -> None:
        """Every tensor of the file must have been read, or hold no weights by its name."""
        for name in self.unused()[:1]:
            where = self.tensors.where(name)
            raise CheckpointError(f"{where}: tensor {name} has no place in a {self.family.name} model")

    def unused(self) -> list[str]:
        """Tensors of the file that were not read, and are of some use by their names."""
        tied = getattr(self.config.heads, "tied", False)
        known = {*self.used, *(["lm_head.weight"] if tied else [])}
        dropped = self.family.dropped
        return [name for name in sorted(self.tensors.names) if name not in known and not name.endswith(dropped)]


def _places(family: Family, config: ModelConfig) -> Iterator[tuple[str, int, Entry]]:
    for entry in family.entries:
        for block in range(config.num_blocks if "{i}" in entry.ours else 1):
            yield entry.ours.format(i=block), block, entry


@dataclasses.dataclass(frozen=True)
class _Part:
    """One tensor of theirs, checked, and the rows of ours that it makes."""

    name: str
    layout: Layout
    rows: slice


def _parts(found: _Names, ours: str, shape: torch.Size) -> Iterator[_Part]:
    """The tensors of theirs that make one of ours."""
    begin, sizes = 0, _part_sizes(found.config, found.entry(ours), shape[0])
    for (name, layout), size in zip(found.theirs(ours), sizes, strict=True):
        if name not in found.tensors.names:
            raise CheckpointError(f"tensor {name} is missing, expected one for {ours} of a {found.family.name} model")
        where, given, dtype = found.tensors.where(name), tuple(found.tensors.shape(name)), found.tensors.dtype(name)
        wanted = (size, *shape[1:])[:: -1 if layout == "columns" else 1]
        if given != wanted:
            raise CheckpointError(f"{where}: tensor {name} has shape {list(given)}, expected {list(wanted)}")
        if not dtype.is_floating_point:
            raise CheckpointError(f"{where}: tensor {name} is {dtype}, expected floats")
        found.used.add(name)
        yield _Part(name, layout, slice(begin, begin + size))
        begin += size


def _filled(found: _Names, name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One tensor of ours from its parts."""
    whole = torch.empty(shape, dtype=dtype, device=device)
    for part in _parts(found, name, shape):
        whole[part.rows] = _to_ours(found.tensors.read(part.name, dtype), part.layout, found.config)
    return whole


def _four_bit_layer(
    found: _Names,
    name: str,
    plain: nn.Module,
    kind: type[FourBitLinear],
    dtype: torch.dtype,
    device: torch.device,
) -> nn.Module:
    """What takes the place of a layer whose weight is, in part at least, in four bits; its bias is there already."""
    assert isinstance(plain, nn.Linear)
    assert isinstance(found.tensors, FourBitTensors)
    layers: list[nn.Module] = []
    for part in _parts(found, name, plain.weight.shape):
        bias = None if plain.bias is None else plain.bias.detach()[part.rows].clone()
        if not found.in_four_bits(part.name):
            weight = _to_ours(found.tensors.read(part.name, dtype), part.layout, found.config)
            layers.append(_linear(weight.to(device), bias))
            continue
        packed = found.tensors.packed(part.name)
        packed = packed.with_tensors({name: tensor.to(device) for name, tensor in packed.tensors().items()})
        if part.layout != "pairs":
            layers.append(kind(packed, bias))
            continue
        order = _to_ours(torch.arange(packed.shape[0], device=device), part.layout, found.config)
        assert bias is None  # It would be in our order. No family has one here.
        layers.append(ReorderedLinear(kind(packed), order))
    return FourBitFusedLinear(layers, plain.parts) if isinstance(plain, FusedLinear) else layers[0]


def _linear(weight: Tensor, bias: Tensor | None) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def _file_dtype(found: _Names) -> torch.dtype:
    """That of the embedding, which is never quantised."""
    name = found.theirs("merger.embedding.weight")[0][0]
    return found.tensors.dtype(name) if name in found.tensors.names else torch.float32


def _part_sizes(config: ModelConfig, entry: Entry, rows: int) -> list[int]:
    """Rows of each part: equal, but for queries against keys and values."""
    if len(entry.theirs) == 3 and "query_key_value" in entry.ours:
        attention = config.attention
        keys = attention.num_kv_heads * attention.head_width
        return [attention.num_heads * attention.head_width, keys, keys]
    return [rows // len(entry.theirs)] * len(entry.theirs)


def _to_ours(tensor: Tensor, layout: Layout, config: ModelConfig) -> Tensor:
    match layout:
        case "rows":
            return tensor
        case "columns":
            return tensor.t()
        case "pairs":
            return _by_head(tensor, config, lambda turned: turned.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2))


def _to_theirs(tensor: Tensor, layout: Layout, config: ModelConfig) -> Tensor:
    match layout:
        case "rows":
            return tensor.contiguous()
        case "columns":
            return tensor.t().contiguous()
        case "pairs":
            return _by_head(tensor, config, lambda turned: turned.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2))


def _by_head(tensor: Tensor, config: ModelConfig, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    """Reorder the turned rows of each head."""
    heads, turned = tensor.unflatten(0, (-1, config.attention.head_width)), num_pairs(config)
    return torch.cat((reorder(heads[:, :turned]), heads[:, turned:]), dim=1).flatten(0, 1)


def _with_vocabulary(config: ModelConfig, vocab_size: int) -> ModelConfig:
    try:
        return dataclasses.replace(config, vocab_size=vocab_size)
    except ConfigError as error:
        raise CheckpointError(f"tokenizer: does not fit the checkpoint: {error}") from error


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=True))


def _sees_whole_prompt(family: Family, tensors: Tensors) -> bool:
    """Whether the mask buffers that old checkpoints carry let a position see later ones: a prefix-LM.

    Raises:
        CheckpointError: blocks that do not agree.
    """
    if family.name != "gptj":
        return False
    masks = sorted(
        name for name in tensors.names if name.endswith(".attn.bias") and is_square_mask(tensors.shape(name))
    )
    verdicts = {name: bool(tensors.read(name)[0, 0].to(torch.int32).triu(1).any()) for name in masks}
    if len(set(verdicts.values())) > 1:
        odd = next(name for name in masks if verdicts[name] != verdicts[masks[0]])
        raise CheckpointError(
            f"{tensors.where(odd)}: tensor {odd} {'shows' if verdicts[odd] else 'hides'} later positions, that of"
            f" {masks[0]} does not: expected the same mask in all blocks"
        )
    return any(verdicts.values())


def _check_slopes(config: ModelConfig, tensors: Tensors) -> None:
    """The slopes of a file must be those of the formula."""
    for name in tensors.names:
        if name.endswith("relative_pe.slopes") and isinstance(config.position, AlibiConfig):
            given = tensors.read(name).float().flatten()
            if len(given) != (heads := config.attention.num_heads):
                raise CheckpointError(f"{tensors.where(name)}: tensor {name} has {len(given)} slopes, expected {heads}")
            expected = alibi_slopes(heads)
            if not torch.allclose(given, expected, rtol=1e-2):
                raise CheckpointError(
                    f"{tensors.where(name)}: tensor {name} holds {given[:2].tolist()} …, expected the slopes"
                    f" {expected[:2].tolist()} … of {len(expected)} heads"
                )
