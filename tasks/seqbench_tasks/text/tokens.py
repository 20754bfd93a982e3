"""A document as a model reads it: bytes, or the tokens of a tokenizer, with the bytes that each token stands for."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from seqbench.errors import RequestError
from seqbench_tasks.text.utf8 import LONGEST_CHARACTER, continues_character
from seqbench_tasks.text.windows import BOS, BYTE_VOCABULARY

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
# What normalisers and small vocabularies change: spaces, line ends, controls, capitals, accents beside their letter and
# ligatures (which Unicode's normal forms rewrite), other scripts, symbols beyond 16 bits.
_VARIETY = (
    "  Of\tall  kinds \r\n\x00\x7f"
    "e\u0301 \u00e9 \u212b \ufb01 \u1e9b\u0323 \u4e2d\u6587 \u0639\u0631 \U0001f600 \u200d\ufeff \u00a0 "
)
# Bytes start..stop-1 of a document.
ReadBytes = Callable[[int, int], bytes]


class TokenSequence(ABC):
    """The tokens of a document, and the bytes that they stand for.

    Tokens come in units: the fewest tokens that stand for whole bytes, such as the several tokens of one character.
    Most units have one token.

    Attributes:
        bos: id that stands before a document; None for tokenizers that have none.
        vocab_size: number of ids.
        length: number of tokens, without bos.
        size: number of bytes.
    """

    bos: int | None
    vocab_size: int
    length: int
    size: int

    @abstractmethod
    def ids(self, start: int, stop: int) -> Ids:
        """Ids of the tokens start..stop-1."""

    @abstractmethod
    def token_from(self, byte: int) -> int:
        """The first token of the first unit that begins at `byte` or later; `length` when there is none."""

    @abstractmethod
    def unit_start(self, token: int) -> int:
        """The first token of the unit that `token` belongs to; `length` for `length`."""

    @abstractmethod
    def unit(self, token: int) -> tuple[int, int]:
        """Number of tokens, and of bytes, of the unit that begins with `token`."""

    @abstractmethod
    def per_byte(self, start: int, nats: Nats) -> Nats:
        """Nats of whole units from token `start` on, (tokens,), spread evenly over the bytes of each unit, (bytes,)."""


class ByteTokens(TokenSequence):
    """A document of `size` bytes whose bytes are its tokens; read piece by piece."""

    bos = BOS
    vocab_size = BYTE_VOCABULARY

    def __init__(self, read: ReadBytes, size: int) -> None:
        self._read = read
        self.length = self.size = size

    def ids(self, start: int, stop: int) -> Ids:
        """Ids of the tokens start..stop-1."""
        return np.frombuffer(self._read(start, stop), dtype=np.uint8).astype(np.int64)

    def token_from(self, byte: int) -> int:
        """The token of that byte; `length` beyond the end."""
        return min(byte, self.length)

    def unit_start(self, token: int) -> int:
        """The token itself."""
        return token

    def unit(self, token: int) -> tuple[int, int]:
        """One of each."""
        del token
        return 1, 1

    def per_byte(self, start: int, nats: Nats) -> Nats:
        """The nats as they are."""
        del start
        return nats


class TokenisedText(TokenSequence):
    """A text in the tokens of a tokenizer, tokenised as a whole and kept in memory.

    Bytes that no token claims, such as a space that the tokenizer leaves out of its offsets, belong to the token after
    them, those at the end to the last one.

    Raises RequestError when the tokenizer does not say which characters its tokens stand for, or its tokens do not give
    the text back.
    """

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise RequestError(
                f"tokenizer {name_of(tokenizer)} does not tell which characters its tokens stand for, so bits per byte"
                " cannot be placed; use its fast version (a tokenizer.json)"
            )
        encoded = tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        self._ids = np.array(encoded["input_ids"], dtype=np.int64)
        _require_lossless(text, self._ids, tokenizer)
        character_ends = _character_ends(text)
        self.bos = tokenizer.bos_token_id
        self.vocab_size = len(tokenizer)
        self.length, self.size = len(self._ids), int(character_ends[-1])
        # Byte at which each token ends; the offsets count characters.
        offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        ends = np.maximum.accumulate(character_ends[offsets[:, 1]])
        ends[ends == ends[-1:]] = self.size
        begins_unit = np.ones(self.length, dtype=bool)
        # Tokens without bytes of their own join the unit before them, at the beginning the one after them.
        begins_unit[1:] = (ends[1:] > ends[:-1]) & (ends[:-1] > 0)
        self._unit_tokens = np.flatnonzero(begins_unit)
        unit_ends = ends[np.append(self._unit_tokens[1:], self.length) - 1] if self.length else ends
        self._unit_starts = np.append(0, unit_ends)

    def ids(self, start: int, stop: int) -> Ids:
        """Ids of the tokens start..stop-1."""
        return self._ids[start:stop]

    def token_from(self, byte: int) -> int:
        """The first token of the first unit that begins at `byte` or later; `length` when there is none."""
        return self._token_of_unit(int(np.searchsorted(self._unit_starts[:-1], byte)))

    def unit_start(self, token: int) -> int:
        """The first token of the unit that `token` belongs to; `length` for `length`."""
        if token >= self.length:
            return self.length
        return int(self._unit_tokens[np.searchsorted(self._unit_tokens, token, side="right") - 1])

    def unit(self, token: int) -> tuple[int, int]:
        """Number of tokens, and of bytes, of the unit that begins with `token`."""
        unit = int(np.searchsorted(self._unit_tokens, token))
        return self._token_of_unit(unit + 1) - token, int(self._unit_starts[unit + 1] - self._unit_starts[unit])

    def per_byte(self, start: int, nats: Nats) -> Nats:
        """Nats of whole units from token `start` on, spread evenly over the bytes of each unit."""
        if not len(nats):
            return nats
        first, last = np.searchsorted(self._unit_tokens, (start, start + len(nats)))
        sizes = np.diff(self._unit_starts[first : last + 1])
        sums = np.add.reduceat(nats, self._unit_tokens[first:last] - start)
        return np.repeat(sums / sizes, sizes)

    def _token_of_unit(self, unit: int) -> int:
        return int(self._unit_tokens[unit]) if unit < len(self._unit_tokens) else self.length


def read_tokens(
    read: ReadBytes, size: int, limit: int | None, tokenizer: PreTrainedTokenizerBase | None
) -> TokenSequence:
    """The first `limit` bytes of a document as a model reads them, whole characters only; all of it for None.

    Args:
        read: gives the bytes start..stop-1 of the document.
        size: bytes of the document.
        limit: where to stop.
        tokenizer: the model's own; None for byte-level models.

    Raises RequestError as `TokenisedText`, and when a document for a tokenizer is no UTF-8.
    """
    stop = size if limit is None else _whole_characters(read, size, limit)
    if tokenizer is None:
        return ByteTokens(read, stop)
    try:
        text = read(0, stop).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"byte {error.start} of the text is no UTF-8, which tokenizers need") from error
    return TokenisedText(text, tokenizer)


def may_lose_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer changes one of many kinds of characters; one that changes none is taken to be lossless."""
    try:
        TokenisedText(_VARIETY, tokenizer)
    except RequestError:
        return True
    return False


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to call a tokenizer in messages."""
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


def _whole_characters(read: ReadBytes, size: int, limit: int) -> int:
    """The largest number of bytes, at most `limit`, that cuts no character in two."""
    if limit >= size:
        return size
    start = max(0, limit - LONGEST_CHARACTER + 1)
    around = read(start, limit + 1)
    stops = range(limit, start - 1, -1)
    # Bytes that are no UTF-8 are cut anywhere.
    return next((stop for stop in stops if not continues_character(around[stop - start])), limit)


def _character_ends(text: str) -> NDArray[np.int64]:
    """Byte at which the first n characters end in UTF-8, for n from 0 to all: (characters + 1,)."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    return np.append(0, np.cumsum(sizes, dtype=np.int64))


def _require_lossless(text: str, ids: Ids, tokenizer: PreTrainedTokenizerBase) -> None:
    found = tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if found == text:
        return
    place = next(
        (place for place, (one, other) in enumerate(zip(text, found, strict=False)) if one != other),
        min(len(text), len(found)),
    )
    raise RequestError(
        f"tokenizer {name_of(tokenizer)} is not lossless: from character {place} on, {text[place : place + 20]!r} comes"
        f" back as {found[place : place + 20]!r}; bits per byte of such a model would leave bytes out"
    )
