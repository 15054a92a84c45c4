"""What a shell completes in the place of a value; where nothing is known, the shell completes names of files."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import typer.core

DTYPES = ("float32", "bfloat16", "float16")
LAWS = ("product", "chain", "next")
DRAFTS = ("auto", "none", "heads", "lookup")
VERIFY_RULES = ("exact", "rejection", "typical")
_OF_FIT = (
    *("--config", "--resume", "--twin", "--print_config", "--ckpt_path", "--json", "--quiet", "--help"),
    *("--trainer.max_steps", "--trainer.devices", "--trainer.num_nodes", "--trainer.strategy", "--trainer.precision"),
    *("--trainer.accelerator", "--trainer.accumulate_grad_batches", "--trainer.val_check_interval"),
    *("--model.preset", "--model.encoding", "--model.config", "--model.init_from", "--model.frozen", "--model.compile"),
    *("--model.activation_checkpointing", "--model.inside_documents", "--model.optimizer.lr", "--model.loss.z_loss"),
    *("--data.train", "--data.valid", "--data.test", "--data.window", "--data.batch_size", "--data.pairs"),
)


def encodings(incomplete: str) -> list[str]:
    """The encodings of the package that begin so."""
    from bytelm.encoding import list_encodings

    return _beginning(list_encodings(), incomplete)


def laws(incomplete: str) -> list[str]:
    """The laws that begin so."""
    return _beginning(LAWS, incomplete)


def laws_or_all(incomplete: str) -> list[str]:
    """The laws, and ``all``, that begin so."""
    return _beginning((*LAWS, "all"), incomplete)


def drafts(incomplete: str) -> list[str]:
    """The drafters that begin so."""
    return _beginning(DRAFTS, incomplete)


def verify_rules(incomplete: str) -> list[str]:
    """The rules of verification that begin so."""
    return _beginning(VERIFY_RULES, incomplete)


def dtypes(incomplete: str) -> list[str]:
    """The types of weights that begin so."""
    return _beginning(DTYPES, incomplete)


def four_bit(incomplete: str) -> list[str]:
    """What may be done with weights in four bits."""
    return _beginning(("dequantise", "keep", "kernels"), incomplete)


def attentions(incomplete: str) -> list[str]:
    """What prompts may see."""
    return _beginning(("causal", "prefix"), incomplete)


def _beginning(names: Sequence[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


class _Completion(NamedTuple):
    """A completed word, as the shells' scripts of typer read it."""

    value: str
    help: str | None = None
    type: str = "plain"


class PassThroughCommand(typer.core.TyperCommand):
    """A command whose options are another parser's: those that are used most are completed without building it."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Completions of the beginning of an option."""
        return [_Completion(name) for name in _beginning(_OF_FIT, incomplete)]
