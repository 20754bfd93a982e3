"""The corpus that a config names, whatever kind of place it lies in."""

import logging

from seqbench_tasks.text.config import HUB_PREFIX, PYTHON_STDLIB, CorpusConfig
from seqbench_tasks.text.corpus import Corpus
from seqbench_tasks.text.documents import DamagedSegment

_LOGGER = logging.getLogger(__name__)


def open_corpus(config: CorpusConfig, needs_text: bool = False) -> Corpus:
    """The corpus that `config.data` names.

    Packed and remote text is unpacked once into a cache of the user's. With `needs_text`, for models that have a
    tokenizer, documents that are not UTF-8 count as bad.

    Raises:
        RequestError: there is no such text, it cannot be read, or a record of it is bad and `on_bad_record` is fail.
    """
    try:
        return _open(config, needs_text)
    except DamagedSegment as error:
        # It has been set aside, and is made anew.
        _LOGGER.warning("%s", error)
        return _open(config, needs_text)


def _open(config: CorpusConfig, needs_text: bool) -> Corpus:
    # Reading archives, tables and the hub takes libraries that are slow to import.
    if config.data == PYTHON_STDLIB:
        from seqbench_tasks.text.stdlib import open_stdlib

        return open_stdlib(config)
    if config.data.startswith(HUB_PREFIX):
        from seqbench_tasks.text.hub import open_hub

        return open_hub(config, needs_text)
    from seqbench_tasks.text.local import open_local

    return open_local(config, needs_text)
