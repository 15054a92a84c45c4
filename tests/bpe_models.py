"""Folders of toy checkpoints with a toy BPE of tokens of several bytes."""

import functools
import shutil
import tempfile
from pathlib import Path

from bpe_support import train
from toy_checkpoints import write_btlm, write_gpt2, write_gptj, write_llama

TOKENS, ROWS, CONTEXT = 340, 352, 256

WRITERS = {
    "gptj": (write_gptj, {"vocab_size": ROWS, "n_positions": CONTEXT}),
    "gptjt": (write_gptj, {"vocab_size": ROWS, "n_positions": CONTEXT, "legacy": "ones"}),
    "gpt2": (write_gpt2, {"n_positions": CONTEXT, "seed": 3}),
    "llama": (write_llama, {"max_position_embeddings": CONTEXT, "tied": True}),
    "btlm": (write_btlm, {"n_positions": CONTEXT}),
}


@functools.cache
def folder_of(name):
    """A folder of this checkpoint, made once."""
    folder = Path(tempfile.mkdtemp(prefix="bpe-model-")) / name
    train(folder, TOKENS)
    write, options = WRITERS[name]
    return write(folder, tokens=TOKENS, bos_token_id=0, eos_token_id=0, **options)


def copy_of(name, folder):
    """The same at another place, to be changed."""
    return Path(shutil.copytree(folder_of(name), folder))
