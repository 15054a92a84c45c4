"""What the tokenizers share: control strings in text, and rows of several texts."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar, Generic, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bytelm.errors import EncodingError
from bytelm.tokenizer.batch import Batch, Id, PaddingSide, pad

AllowedControls = Collection[str] | Literal["all"]
BOS_PATCH_BYTES = 4
"""Length of what stands before every document of a corpus of bytes: a whole window of the merger."""

_MOST_NAMED = 8
_KEPT_AUTOMATA = 4


@runtime_checkable
class TextDecoder(Protocol):
    """Turns ids into text as they come, whole characters only, each as soon as no later id can change it."""

    def decode(self, ids: Any = (), *, final: bool = False) -> str:
        """The text that is certain now; ``final`` says that no id follows, so that nothing is held back."""
        ...


@runtime_checkable
class TextAutomaton(Protocol):
    """What may follow what: a deterministic automaton over ids that starts in state 0.

    Attributes:
        transitions: int32[S, V], the state after an id; below 0 where it must not follow.
        accepting: bool[S], where a text may end.
    """

    transitions: NDArray[np.int32]
    accepting: NDArray[np.bool_]


class BaseTokenizer(ABC, Generic[Id]):
    """Text to ids and back, with control strings where they are allowed.

    Args:
        controls: every control string.
    Attributes:
        pad_token, bos_token, eos_token: the control strings of these purposes.
        begins_with_bos: whether models read BOS before every text, or only where nothing stands before it.
        context_free: whether a piece of text has the same ids wherever it stands.
    """

    pad_token: ClassVar[str]
    bos_token: ClassVar[str]
    eos_token: ClassVar[str]
    begins_with_bos: ClassVar[bool]
    context_free: ClassVar[bool]

    def __init__(self, controls: Iterable[str]) -> None:
        self._controls = tuple(controls)
        self._automata = functools.lru_cache(_KEPT_AUTOMATA)(self._make_automaton)

    @property
    @abstractmethod
    def name(self) -> str:
        """As results name it."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256, in hex, of what decides which ids a text has; the same for tokenizers whose models can draft for
        each other.
        """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids; they are 0 to ``vocab_size - 1``."""

    @property
    def eos(self) -> NDArray[Id]:
        """The ids of EOS, in one dimension."""
        return self._control_ids(self.eos_token)

    @property
    @abstractmethod
    def eos_start(self) -> tuple[int, ...]:
        """The shortest beginning of EOS with which the ids of no text begin."""

    @property
    @abstractmethod
    def unit(self) -> int:
        """Every word of the code, EOS among them, begins at a multiple of so many ids."""

    @abstractmethod
    def bos_patch(self, num_ids: int) -> NDArray[Id]:
        """The ids of BOS, repeated to ``num_ids``."""

    def opening(self, patch: int) -> NDArray[Id]:
        """What a model that reads ``patch`` ids at a time finds before every text: BOS as a corpus has it, and a whole
        patch of it at least; nothing where models do not begin with BOS.
        """
        return self.bos_patch(max(patch, BOS_PATCH_BYTES) if self.begins_with_bos else 0)

    @abstractmethod
    def word_starts(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """bool[n]: where a word of the code begins."""

    @abstractmethod
    def decoder(self, errors: Literal["strict", "replace"] = "strict", *, skip_controls: bool = False) -> TextDecoder:
        """A decoder for ids that come piece by piece, with the options of :meth:`decode`."""

    @abstractmethod
    def decode(self, ids: Any, *, errors: Literal["strict", "replace"] = "strict", skip_controls: bool = False) -> str:
        """The text of ``ids``; controls become their strings, or nothing with ``skip_controls``."""

    @abstractmethod
    def _encode_text(self, text: str, start: int, stop: int) -> NDArray[Id]:
        """The ids of ``text[start:stop]``, read without controls; errors give the index in the whole ``text``."""

    @abstractmethod
    def _control_ids(self, control: str) -> NDArray[Id]:
        """The ids of a control string."""

    @abstractmethod
    def _make_automaton(self, pattern: str | None) -> TextAutomaton:
        """See :meth:`automaton`."""

    @abstractmethod
    def _find_controls(self, text: str, allowed: frozenset[str]) -> Iterable[tuple[int, str]]:
        """The control strings that ``text`` is cut at, with their indices, from left to right."""

    def automaton(self, pattern: str | None = None) -> TextAutomaton:
        """The automaton of the ids of the texts that ``pattern`` matches, by default all, with EOS after them.

        Every way of cutting such a text into ids is legal. The last few are kept.

        Raises:
            DecodingError: see :func:`bytelm.encoding.pattern_automaton`; or a vocabulary makes it too large.
        """
        return self._automata(pattern)

    def has_control(self, text: str) -> bool:
        """Whether a control string occurs in ``text``."""
        return any(True for _ in self._find_controls(text, frozenset(self._controls)))

    def encode(self, text: str, *, allowed_controls: AllowedControls = ()) -> NDArray[Id]:
        """The ids of ``text``: one dimension. Allowed control strings become their ids.

        Args:
            text: any text.
            allowed_controls: the control strings that may stand in ``text``, or "all".
        Raises:
            EncodingError: a lone surrogate, with its index in ``text``; a control string that is not allowed, where the
                tokenizer refuses those; an unknown name in ``allowed_controls``.
        """
        parts = []
        end = 0
        for start, control in self._find_controls(text, self._allowed(allowed_controls)):
            parts += [self._encode_text(text, end, start), self._control_ids(control)]
            end = start + len(control)
        parts.append(self._encode_text(text, end, len(text)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        padding_side: PaddingSide = "right",
        allowed_controls: AllowedControls = (),
    ) -> Batch[Id]:
        """The ids of several texts, padded with the ids of ``pad_token`` to the longest.

        Raises:
            EncodingError: as :meth:`encode`, with the index of the text in ``texts``.
        """
        return pad(self._encode_rows(texts, allowed_controls), self._control_ids(self.pad_token), padding_side)

    def _encode_rows(self, texts: Sequence[str], allowed_controls: AllowedControls) -> list[NDArray[Id]]:
        rows = []
        for number, text in enumerate(texts):
            try:
                rows.append(self.encode(text, allowed_controls=allowed_controls))
            except EncodingError as error:
                raise EncodingError(f"text {number}: {error}") from None
        return rows

    def decode_batch(
        self,
        batch: Batch[Any] | Sequence[Any] | NDArray[Any],
        *,
        errors: Literal["strict", "replace"] = "strict",
        skip_controls: bool = False,
    ) -> list[str]:
        """The text of every row. Padding of a :class:`Batch` is left out; other rows are decoded whole.

        Raises:
            EncodingError: as :meth:`decode`, with the number of the row.
        """
        texts = []
        for number, ids in enumerate(batch.rows() if isinstance(batch, Batch) else batch):
            try:
                texts.append(self.decode(ids, errors=errors, skip_controls=skip_controls))
            except EncodingError as error:
                raise EncodingError(f"row {number}: {error}") from None
        return texts

    def _allowed(self, controls: AllowedControls) -> frozenset[str]:
        if isinstance(controls, str):
            if controls != "all":
                raise EncodingError(f"allowed_controls: found {controls!r}, expected 'all' or a collection of controls")
            return frozenset(self._controls)
        unknown = sorted(set(controls) - set(self._controls))
        if unknown:
            named = [*self._controls[:_MOST_NAMED], *(["…"] if len(self._controls) > _MOST_NAMED else [])]
            raise EncodingError(f"allowed_controls: found {unknown[0]!r}, expected some of {', '.join(named)}")
        return frozenset(controls)
