"""Bits per byte of held-out documents, by position behind a fresh state."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from seqbench.contracts import Evaluation, Measurement, Predictor
from seqbench_tasks.byte_lm.config import WINDOWS, ByteLmConfig
from seqbench_tasks.text.documents import Document, DocumentTable
from seqbench_tasks.text.followable import require_followable
from seqbench_tasks.text.protocol import Protocol
from seqbench_tasks.text.scoring import score
from seqbench_tasks.text.tokens import TokenSequence, read_tokens
from seqbench_tasks.text.utf8 import LONGEST_CHARACTER

# Of many documents each is read for at least so many windows: fewer documents, and not only their beginnings.
_WINDOWS_OF_EACH = 8
# Fewer documents than this are too few items to compare models on, and are divided into passages.
_FEWEST_ITEMS = 10
_PASSAGE_BYTES = 16_384
# End of the first position bucket; each of the following ends at twice the position.
_FIRST_BUCKET = 16

# Bits and bytes of an item's position buckets, in front of the bucket's end.
_BITS, _BYTES = "bits_to_", "bytes_to_"

Record = dict[str, Any]


def evaluate(
    config: ByteLmConfig,
    predictor: Predictor,
    documents: DocumentTable,
    split: str,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Evaluation:
    """bits_per_byte by position and over all bytes that are read, and one item for each document or passage.

    Raises RunFailure("protocol") when the model cannot follow the protocol.
    """
    protocol, chosen = config.parsed_protocol(), _documents(config, documents, split)
    passage = None if len(chosen) >= _FEWEST_ITEMS else _PASSAGE_BYTES
    items: list[Record] = []
    for document, limit in chosen:
        tokens = read_tokens(document.read, document.size, limit, tokenizer)
        if config.protocol != WINDOWS:
            require_followable(predictor, protocol, tokens.length)
        for start, bits, sizes in _passages(predictor, tokens, protocol, passage):
            items.append(_item(len(items), document, start, bits, sizes))
    return Evaluation(_measure(items, split), tuple(items))


def read_held_out(
    config: ByteLmConfig, documents: DocumentTable, split: str, tokenizer: PreTrainedTokenizerBase | None
) -> None:
    """Turn what `evaluate` reads into tokens. Raises RequestError where the tokenizer does not give the text back."""
    for document, limit in _documents(config, documents, split):
        read_tokens(document.read, document.size, limit, tokenizer)


def _documents(config: ByteLmConfig, documents: DocumentTable, split: str) -> list[tuple[Document, int]]:
    """Documents that are read, and how many bytes of each."""
    return list(_chosen(documents, config.evaluated_bytes(split), _WINDOWS_OF_EACH * config.window_bytes))


def _chosen(documents: DocumentTable, budget: int, least: int) -> Iterator[tuple[Document, int]]:
    """Documents to read, in an order that is random and fixed, and how many bytes of each.

    All get an equal share of the `budget`, and at least `least`: where that is too much, the last ones are left out.
    """
    share = max(least, -(-budget // len(documents)))
    for row in np.argsort(documents.digests, kind="stable").tolist():
        if budget <= 0:
            return
        # A character is read whole or not at all.
        limit = max(min(share, budget), LONGEST_CHARACTER)
        yield documents[row], limit
        budget -= min(limit, int(documents.sizes[row]))


def _passages(
    predictor: Predictor, tokens: TokenSequence, protocol: Protocol, passage: int | None
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.int64]]]:
    """First byte, and bits and bytes by position bucket, of each `passage` bytes; None takes all as one."""
    length = passage or tokens.size
    buckets = _bucket_of(np.array([tokens.size]))[0] + 1
    shape = (-(-tokens.size // length), buckets)
    bits, sizes = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for scored in score(predictor, tokens, protocol):
        places = np.arange(scored.start, scored.start + len(scored.nats))
        cells = places // length * buckets + _bucket_of(_positions(places, protocol))
        bits += np.bincount(cells, scored.nats / math.log(2), minlength=bits.size).reshape(shape)
        sizes += np.bincount(cells, minlength=bits.size).reshape(shape)
    for number in range(shape[0]):
        yield number * length, bits[number], sizes[number]


def _positions(places: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int64]:
    """Bytes that a model has read since its state was fresh, before each byte of a document."""
    if protocol.stride is None:
        return places
    piece = places // protocol.stride * protocol.stride
    return places - piece + np.minimum(piece, protocol.context)


def _bucket_of(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the position buckets: 0 .. 15 is the first, 16 .. 31 the second, 32 .. 63 the third."""
    return np.ceil(np.log2((positions + 1) / _FIRST_BUCKET)).clip(0).astype(np.int64)


def _item(index: int, document: Document, start: int, bits: NDArray[np.float64], sizes: NDArray[np.int64]) -> Record:
    """One document or passage as a flat record."""
    total = int(sizes.sum())
    item = {
        "index": index,
        "document": document.name,
        "start": start,
        "bytes": total,
        "bits_per_byte": float(bits.sum()) / total,
    }
    for bucket in np.flatnonzero(sizes).tolist():
        end = _FIRST_BUCKET << bucket
        item |= {f"{_BITS}{end}": float(bits[bucket]), f"{_BYTES}{end}": int(sizes[bucket])}
    return item


def curve_of(item: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Upper end, bits per byte and bytes of each position bucket of an item."""
    sizes = {int(key.removeprefix(_BYTES)): size for key, size in item.items() if key.startswith(_BYTES)}
    return [(end, item[f"{_BITS}{end}"] / size, size) for end, size in sorted(sizes.items())]


def _measure(items: Sequence[Record], split: str) -> tuple[Measurement, ...]:
    """bits_per_byte by position, then over everything; every byte alike."""
    curves = [curve_of(item) for item in items]
    found = []
    for end in sorted({place for curve in curves for place, _, _ in curve}):
        coordinates = {"position": end}
        found.append(
            _bits_per_byte([part[1:] for curve in curves for part in curve if part[0] == end], split, coordinates)
        )
    return (*found, _bits_per_byte([(item["bits_per_byte"], item["bytes"]) for item in items], split, {}))


def _bits_per_byte(
    parts: Sequence[tuple[float, float]], split: str, coordinates: Mapping[str, int | float | str | None]
) -> Measurement:
    """Of parts that have (bits per byte, bytes)."""
    size = sum(int(size) for _, size in parts)
    bits = math.fsum(mean * part for mean, part in parts)
    return Measurement("bits_per_byte", bits / size, "bits per byte", size, split, coordinates)
