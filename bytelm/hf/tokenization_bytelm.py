"""The tokenizer of a model of bytes, for transformers: ids are bytes of an encoding."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizer

from bytelm.encoding import encoding_from_dict
from bytelm.errors import EncodingError
from bytelm.tokenizer.tokenizer import Tokenizer

_FILE = "encoding.json"
_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_IDS = {token: byte for byte, token in enumerate(_TOKENS)}


class BytelmTokenizer(PreTrainedTokenizer):
    """Text to byte ids and back; a token is a byte, written ``<0xE3>``.

    Control strings in text become controls, which may be several bytes: ``bos_token`` is the whole patch of BOS that
    stands before every document, ``eos_token`` and ``pad_token`` are code words. It is put before a text unless
    ``add_special_tokens=False``. With ``split_special_tokens=True`` control strings are text. ``eos_token_id`` and its
    like are the first byte of the word. Bytes that are malformed decode to U+FFFD; a character that the end cuts is
    left out.

    Args:
        encoding_file: ``encoding.json``.
        patch: P of the model.
        kwargs: those of ``PreTrainedTokenizer``.
    Raises:
        EncodingError: the file is no table of an encoding.
    """

    vocab_files_names = {"encoding_file": _FILE}  # noqa: RUF012 - transformers wants a plain class attribute
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(self, encoding_file: str, patch: int = 4, **kwargs: Any) -> None:
        table = json.loads(Path(encoding_file).read_text(encoding="utf-8"))
        self.byte_tokenizer = Tokenizer(encoding_from_dict(table))
        self._opening = self.byte_tokenizer.opening(patch)
        for name in ("bos_token", "eos_token", "pad_token"):
            kwargs[name] = getattr(self.byte_tokenizer, name)
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(patch=patch, **kwargs)

    @property
    def vocab_size(self) -> int:
        """256, the byte values."""
        return 256

    def get_vocab(self) -> dict[str, int]:
        """Tokens and their ids."""
        return dict(_IDS)

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:  # type: ignore[override] # their bases differ
        """The tokens of a text, without BOS before it.

        Raises:
            EncodingError: a lone surrogate, with its index.
        """
        split = kwargs.get("split_special_tokens")
        split = self.split_special_tokens if split is None else split
        ids = self.byte_tokenizer.encoding.encode(text) if split else self._with_controls(text)
        return [_TOKENS[byte] for byte in ids.tolist()]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """BOS, then the ids; those of a second text follow at once."""
        return [*self._opening.tolist(), *token_ids_0, *(token_ids_1 or [])]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for bytes of controls, 0 for those of text."""
        ids = token_ids_0 if already_has_special_tokens else self.build_inputs_with_special_tokens(token_ids_0)
        data = np.array([*ids, *(token_ids_1 or [])], dtype=np.uint8)
        values, starts = self.byte_tokenizer.encoding.parse(data)
        names = len(self.byte_tokenizer.encoding.controls)
        control = (values < 0) & (values >= -names)
        mask: list[int] = np.repeat(control, np.diff(starts, append=len(data))).astype(int).tolist()
        return mask

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens."""
        return self._text(np.array([_IDS[token] for token in tokens], dtype=np.uint8), skip=False)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write ``encoding.json``."""
        path = Path(save_directory) / (f"{filename_prefix}-{_FILE}" if filename_prefix else _FILE)
        table = self.byte_tokenizer.encoding.to_dict()
        path.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return (str(path),)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "byte_tokenizer": self.byte_tokenizer.encoding}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.byte_tokenizer = Tokenizer(state["byte_tokenizer"])

    def _with_controls(self, text: str) -> NDArray[np.uint8]:
        """The bytes of a text with control strings, of which BOS is a whole patch."""
        pieces = [
            self.byte_tokenizer.encode(piece, allowed_controls="all") for piece in text.split(str(self.bos_token))
        ]
        return np.concatenate([pieces[0], *(part for piece in pieces[1:] for part in (self._opening, piece))])

    def _text(self, ids: NDArray[np.uint8], *, skip: bool) -> str:
        text = self.byte_tokenizer.decoder("replace", skip_controls=skip).decode(ids)
        bos = str(self.bos_token)
        return text.replace(bos * (len(self._opening) // len(self.byte_tokenizer.encoding.controls[bos])), bos)

    def _decode(  # type: ignore[override] # their versions differ
        self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any
    ) -> str:
        ids = np.atleast_1d(np.asarray(token_ids, dtype=np.int64))
        if len(ids) and not 0 <= ids.min() <= ids.max() < 256:
            raise EncodingError(f"ids: found {ids.min()} to {ids.max()}, expected bytes, 0 to 255")
        return self._text(ids.astype(np.uint8), skip=skip_special_tokens)

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Refuse tokens that are no controls of the encoding: there is no room for another id."""
        for token in new_tokens or ():
            if str(token) not in self.byte_tokenizer.encoding.controls:
                known = ", ".join(self.byte_tokenizer.encoding.controls)
                raise EncodingError(f"token {str(token)!r}: found a new one, expected the controls alone: {known}")
        return 0

    def _convert_token_to_id(self, token: str) -> int | None:
        word = self.byte_tokenizer.encoding.controls.get(token)
        return _IDS.get(token) if word is None else word[0]

    def _convert_id_to_token(self, index: int) -> str:
        return _TOKENS[index]

    def _pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Pad with whole words, where that of PAD has several bytes."""
        ids, word = list(encoded_inputs["input_ids"]), self.byte_tokenizer.encoding.controls[str(self.pad_token)]
        padded = super()._pad(encoded_inputs, *args, **kwargs)
        filler = np.resize(np.frombuffer(word, np.uint8), len(padded["input_ids"]) - len(ids)).tolist()
        if filler:
            left = list(padded["input_ids"][len(filler) :]) == ids
            padded["input_ids"] = [*filler, *ids] if left else [*ids, *filler]
        return padded
