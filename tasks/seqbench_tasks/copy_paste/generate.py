"""Copy-paste strings: training batches and the fixed strings of validation and test."""

import numpy as np
import torch
from numpy.typing import NDArray

from seqbench.contracts import IGNORED_LABEL, Batch
from seqbench_tasks.copy_paste.config import CopyPasteConfig
from seqbench_tasks.copy_paste.streams import SymbolStream, below

Ids = NDArray[np.int64]


def training_batch(config: CopyPasteConfig, seed: int, index: int, batch_size: int) -> Batch:
    """Batch `index` of the training stream of `seed`: `batch_size` strings, padded when lengths are mixed.

    Its first k strings are the same for every batch_size >= k. Raises RequestError for a negative seed or index.
    """
    stream = SymbolStream("training", seed, index)
    shortest, largest = config.minimum_length, config.largest_training_length(index)
    if config.mixed_lengths:
        # Every row draws its length and a payload of the largest length, of which it keeps the beginning: rows take
        # equal shares of the stream, so that a row does not depend on the lengths before it.
        numbers = stream.draw(batch_size * (1 + largest)).reshape(batch_size, 1 + largest)
        lengths = shortest + below(numbers[:, 0], largest - shortest + 1)
        return _padded_strings(config, below(numbers[:, 1:], config.alphabet_size), lengths)
    length = shortest + int(below(stream.draw(1), largest - shortest + 1)[0])
    payloads = below(stream.draw(batch_size * length), config.alphabet_size)
    return _strings(config, payloads.reshape(batch_size, length))


def evaluation_strings(config: CopyPasteConfig, split: str, length: int, start: int, stop: int) -> Batch:
    """Strings start..stop-1 of one payload length of the "validation" or "test" set; no seed of a run enters."""
    streams = (SymbolStream(split, length, index) for index in range(start, stop))
    return _strings(config, np.stack([below(stream.draw(length), config.alphabet_size) for stream in streams]))


def _strings(config: CopyPasteConfig, payloads: Ids) -> Batch:
    """Unpadded strings of payloads (batch, N)."""
    shape = (payloads.shape[0], config.sequence_length(payloads.shape[1]))
    input_ids, labels = np.empty(shape, dtype=np.int64), np.full(shape, IGNORED_LABEL, dtype=np.int64)
    _lay_out(config, payloads, input_ids, labels)
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels))


def _padded_strings(config: CopyPasteConfig, payloads: Ids, lengths: Ids) -> Batch:
    """Strings of the first lengths[b] symbols of payloads[b], padded on the right to the longest of them."""
    shape = (payloads.shape[0], config.sequence_length(int(lengths.max())))
    input_ids = np.full(shape, config.padding, dtype=np.int64)
    labels = np.full(shape, IGNORED_LABEL, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for row, length in enumerate(lengths.tolist()):
        rows, columns = slice(row, row + 1), slice(config.sequence_length(length))
        _lay_out(config, payloads[rows, :length], input_ids[rows, columns], labels[rows, columns])
        attention_mask[rows, columns] = 1
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels), torch.from_numpy(attention_mask))


def _lay_out(config: CopyPasteConfig, payloads: Ids, input_ids: Ids, labels: Ids) -> None:
    """Write strings of payloads (batch, N) into input_ids and labels, both (batch, 2N + F); other labels stay."""
    length = payloads.shape[1]
    separator = config.lookback(length)
    input_ids[:, :length] = payloads
    input_ids[:, length:separator] = config.filler
    input_ids[:, separator] = config.separator
    input_ids[:, separator + 1 :] = payloads[:, :-1]
    labels[:, separator:] = payloads
