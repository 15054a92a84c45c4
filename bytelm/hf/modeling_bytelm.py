"""A model of bytes as transformers sees it: logits of the next byte, a loss over all heads, and our decoder."""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from bytelm.encoding import encoding_from_dict
from bytelm.errors import DecodingError
from bytelm.hf.configuration_bytelm import BytelmConfig
from bytelm.hf.generation import generate_batch
from bytelm.hf.positions import Rows, lay_rows, read_everywhere
from bytelm.hub.language_model import LanguageModel
from bytelm.model.build import build_model, fill_buffers
from bytelm.model.config import ModelConfig
from bytelm.nn.position import Alibi
from bytelm.tokenizer.tokenizer import Tokenizer

_DEVIATION = 0.02


@dataclass
class BytelmOutput(CausalLMOutputWithPast):
    """What :meth:`BytelmForCausalLM.forward` gives where all heads were asked for.

    Attributes:
        head_logits: (B, L, K, V); entry k of a position is the law of the symbol k + 1 places after it, of chained
            heads given the symbols between.
    """

    head_logits: Tensor | None = None


class BytelmForCausalLM(PreTrainedModel, GenerationMixin):
    """A model of bytes under the interface of transformers.

    Args:
        config: of the model, with the table of its encoding.
    """

    config_class = BytelmConfig
    base_model_prefix = "model"
    accepts_loss_kwargs = False
    _no_split_modules = ["SequentialBlock", "ParallelBlock"]  # noqa: RUF012 - transformers wants it so
    _supports_sdpa = True

    def __init__(self, config: BytelmConfig) -> None:
        super().__init__(config)
        # Not by a method of the config: transformers may have it from another copy of the code, with other classes.
        self.model = build_model(ModelConfig.from_dict(config.model, "model"))
        if self.model.device.type != "meta":
            for module in self.model.modules():
                module._is_hf_initialized = True  # what transformers asks for
        self._language_model: LanguageModel | None = None
        self.post_init()

    @property
    def language_model(self) -> LanguageModel:
        """The model with its tokenizer, on which ``generate`` runs."""
        found = self._language_model
        if found is None or found.model is not self.model:
            encoding = encoding_from_dict(self.config.encoding or {})
            found = self._language_model = LanguageModel(self.model, Tokenizer(encoding))
        return found

    def get_input_embeddings(self) -> nn.Module:
        """The table of byte embeddings."""
        table: nn.Module = self.model.merger.embedding
        return table

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        output_head_logits: bool = False,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        """Logits of the symbol after every position, and the loss.

        Logits are those of head 1 on the state after each position: the law ``next``, and under every other law, too,
        that of the first symbol after a prompt that ends there. All phases are read, so a call costs P forwards of the
        body over L / P positions. Every row is read behind one BOS patch, whether it brings one along or not; positions
        inside of that BOS have the logits that follow it, those of padding zeros.

        Args:
            input_ids: (B, L).
            attention_mask: (B, L), 0 for padding, on either side; by default there is none.
            labels: (B, L), the ids, or -100 where one does not count; each position predicts the labels after it. The
                loss is the mean of the nats of all heads, at every position, of every label: in each of the P phases
                what ``bytelm fit`` minimises. A next-patch module is not trained by it.
            past_key_values, inputs_embeds, output_attentions, output_hidden_states: refused where they are given.
            use_cache: of no effect, ``generate`` has a cache of its own; ``past_key_values`` of the result is None.
            return_dict: False for a tuple.
            logits_to_keep: positions at the end to give logits of; 0 for all.
            output_head_logits: give those of all heads, too, as a :class:`BytelmOutput`.
        Raises:
            DecodingError: a row longer than the context; ids that are no bytes; an argument that is not served.
        """
        _refuse(past_key_values=past_key_values, inputs_embeds=inputs_embeds)
        _refuse(output_attentions=output_attentions or None, output_hidden_states=output_hidden_states or None)
        if input_ids is None:
            raise DecodingError("input_ids: found none, expected rows of ids")
        rows = self._rows(input_ids := input_ids.long(), attention_mask, labels)
        h_BND, windows_BN_ = read_everywhere(self.model, rows.symbols_BL)
        states_BL = (rows.places_BL - (self.model.config.patch - 1)).clamp(min=0)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states_BL, real = states_BL[:, -logits_to_keep:], real[:, -logits_to_keep:]  # from -0: all
        padded = (real == 0)[..., None]
        index = torch.arange(len(input_ids), device=input_ids.device)[:, None]
        if labels is None and not output_head_logits:
            windows = windows_BN_[index, states_BL]
            logits = self.model.heads.step(h_BND[index, states_BL], windows, windows[..., :0])
            found = CausalLMOutputWithPast(logits=logits.masked_fill(padded, 0))
        else:
            heads_BNKV = self._head_logits(rows, h_BND, windows_BN_)
            logits = heads_BNKV[index, states_BL].masked_fill(padded[..., None], 0)
            loss = None if labels is None else self._loss(rows, heads_BNKV)
            found = CausalLMOutputWithPast(loss=loss, logits=logits[:, :, 0])
            if output_head_logits:
                found = BytelmOutput(loss=loss, logits=logits[:, :, 0], head_logits=logits)
        return found.to_tuple() if return_dict is False else found

    @torch.no_grad()
    def generate(  # type: ignore[override] # what it does not serve comes as one of kwargs, and is refused
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        streamer: Any = None,
        assistant_model: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Continue rows of ids with the exact decoder; arguments mean what they mean in transformers.

        Settings: ``max_new_tokens``, ``max_length``, ``min_new_tokens``, ``min_length``, ``max_time``,
        ``num_return_sequences``, ``do_sample``, ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``typical_p``,
        ``repetition_penalty``, ``no_repeat_ngram_size``, ``sequence_bias``, ``bad_words_ids``, ``suppress_tokens``,
        ``eos_token_id`` (an id, ids, or sequences of ids), ``pad_token_id``, ``stop_strings``,
        ``prompt_lookup_num_tokens``, ``return_dict_in_generate``; one that is named nowhere is off, ``top_k`` too.
        Besides, the options of :class:`bytelm.hub.GenerationOptions`: ``law``, ``draft``, ``num_draft_tokens``,
        ``seed``, ``pattern``, ``valid_text``, ``max_new_chars``, ``verify``, ``compile``.

        Args:
            inputs: (B, L), also as ``input_ids``; BOS alone for None. Each row is read behind one BOS patch, whether it
                brings it along or not.
            generation_config: settings; ``kwargs`` go before it, and it before ``self.generation_config``.
            logits_processor: functions ``(input_ids (1, n), scores (1, V)) -> (1, V)``, called at every position with
                the ids of one row, without padding and BOS.
            stopping_criteria: functions ``(input_ids (1, n), None) -> bool``, asked after every symbol; the ids begin
                with those of the prompt.
            streamer: a streamer of transformers, for one row; gets the ids of each forward.
            assistant_model: another model of this class and encoding, to draft.
            kwargs: ``attention_mask`` (B, L), 0 for padding; by default PAD at the beginning is padding; ``tokenizer``,
                which is not needed; settings, and options.
        Returns:
            (B * num_return_sequences, n) ids with those of the prompt, filled up with PAD; the end is part of them.
        Raises:
            DecodingError: an argument that is not served, by its name; else as ``LanguageModel.generate``.
        """
        if assistant_model is not None:
            kwargs["draft"] = getattr(assistant_model, "language_model", assistant_model)
        training = self.training
        try:
            return generate_batch(
                self.language_model,
                self.generation_config,
                generation_config,
                {"input_ids": inputs, **kwargs} if inputs is not None else kwargs,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                streamer=streamer,
            )
        finally:
            self.train(training)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config and weights, and the code, so that the folder can be loaded where this package is not."""
        super().save_pretrained(save_directory, *args, **kwargs)
        try:
            bundle = importlib.import_module(".bundle", __package__).bundle
        except ImportError:  # of a folder with code of its own, which transformers copies
            return
        for name, text in bundle().items():
            (Path(save_directory) / name).write_text(text, encoding="utf-8")

    def _rows(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None) -> Rows:
        tokenizer, tree = self.language_model.tokenizer, self.model.config
        opening = torch.from_numpy(tokenizer.opening(tree.patch)).to(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        for name, ids, ignored in (("input_ids", input_ids, None), ("labels", labels, -100)):
            known = None if ids is None else (ids >= 0) & (ids < tree.vocab_size) | (ids == ignored)
            if known is not None and not bool(known.all()):
                raise DecodingError(f"{name}: found ids out of range, expected 0 to {tree.vocab_size - 1}")
        return lay_rows(input_ids, mask.bool(), labels, opening, tokenizer.unit, tree.context)

    def _head_logits(self, rows: Rows, h_BND: Tensor, windows_BN_: Tensor) -> Tensor:
        """(B, N, K, V): of all heads on all states, given the symbols that follow (teacher forcing)."""
        patch, num_states = self.model.config.patch, h_BND.shape[1]
        following = F.pad(rows.symbols_BL, (0, patch))[:, patch:].unfold(1, patch, 1)[:, :num_states]
        logits: Tensor = self.model.heads(h_BND, windows_BN_, following)
        return logits

    def _loss(self, rows: Rows, heads_BNKV: Tensor) -> Tensor:
        patch, num_states = self.model.config.patch, heads_BNKV.shape[1]
        following = F.pad(rows.labels_BL, (0, patch), value=-100)[:, patch:].unfold(1, patch, 1)[:, :num_states]
        nats = F.cross_entropy(
            heads_BNKV.flatten(0, 2).float(), following.flatten(), ignore_index=-100, reduction="sum"
        )
        return nats / (following != -100).sum().clamp(min=1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Buffers that are computed, and weights that a file did not have."""
        if isinstance(module, Alibi):
            fill_buffers(self.model, module.slopes.device)
        for name, parameter in module.named_parameters(recurse=False):
            if getattr(parameter, "_is_hf_initialized", False) or not math.prod(parameter.shape):
                continue
            if parameter.dim() == 1:
                parameter.fill_(0.0 if name == "bias" else 1.0)
            else:
                parameter.normal_(0.0, _DEVIATION)


def _refuse(**given: Any) -> None:
    """Refuse arguments that transformers' models have and this one has not."""
    for name, value in given.items():
        if value is not None:
            raise DecodingError(f"{name}: found {type(value).__name__}, expected none: this model has no such thing")
