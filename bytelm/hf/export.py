"""A model of bytes as a folder that transformers loads, on machines without this package, too."""

from pathlib import Path
from typing import Any

from bytelm.errors import CheckpointError
from bytelm.hf.bundle import bundle
from bytelm.hub.checkpoint import package_version, write_folder
from bytelm.hub.exported import MODEL_TYPE, PREFIX
from bytelm.hub.language_model import LanguageModel
from bytelm.tokenizer import Tokenizer

FORMAT = "bytelm-transformers"
"""Says in ``config.json`` that the folder is ours to replace."""

_MAX_NEW_TOKENS = 160
_AUTO_MAP = {
    "AutoConfig": "configuration_bytelm.BytelmConfig",
    "AutoModelForCausalLM": "modeling_bytelm.BytelmForCausalLM",
}


def export_transformers(folder: Path, lm: LanguageModel) -> None:
    """Write config, weights, tokenizer and code; all or nothing.

    ``AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`` reads it, and :func:`bytelm.load`.

    Args:
        folder: made where missing; one that was written so before is replaced.
        lm: a model of bytes.
    Raises:
        CheckpointError: a model of tokens; or the folder holds something else, or cannot be written.
    """
    if not isinstance(lm.tokenizer, Tokenizer):
        raise CheckpointError(
            f"found a model of tokens of the family {lm.family}, expected one of bytes: transformers reads the folder"
            " of a model of tokens as it is"
        )
    encoding = lm.tokenizer.encoding.to_dict()
    weights = {f"{PREFIX}{name}": tensor for name, tensor in lm.model.state_dict().items()}
    write_folder(
        folder,
        _config(lm, encoding),
        weights,
        {
            "encoding.json": encoding,
            "generation_config.json": {"max_new_tokens": _MAX_NEW_TOKENS, **_ids(lm.tokenizer)},
            "tokenizer_config.json": _tokenizer_config(lm),
            **bundle(),
        },
    )


def _config(lm: LanguageModel, encoding: dict[str, Any]) -> dict[str, Any]:
    tokenizer = lm.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    return {
        "format": FORMAT,
        "bytelm_version": package_version(),
        "model_type": MODEL_TYPE,
        "architectures": ["BytelmForCausalLM"],
        "auto_map": _AUTO_MAP,
        "torch_dtype": str(next(lm.model.parameters()).dtype).removeprefix("torch."),
        "tie_word_embeddings": False,
        **_ids(tokenizer),
        "model": lm.config.to_dict(),
        "encoding": encoding,
    }


def _tokenizer_config(lm: LanguageModel) -> dict[str, Any]:
    return {
        "tokenizer_class": "BytelmTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_bytelm.BytelmTokenizer", None]},
        "patch": lm.config.patch,
        "padding_side": "left",
        "model_max_length": lm.config.context,
        "clean_up_tokenization_spaces": False,
    }


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    """First bytes of the control words, by the names that transformers has for them."""
    controls = tokenizer.encoding.controls
    names = {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token, "pad": tokenizer.pad_token}
    return {f"{name}_token_id": controls[control][0] for name, control in names.items()}
