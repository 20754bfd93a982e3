"""The byte tokenizer of PMNet: one id per byte of UTF-8."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AddedToken, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizer

from pmnet_plugin.configuration import PMNetConfig
from seqbench.errors import RequestError

_BYTES = 256
# 254 and 255 occur nowhere in UTF-8; padding shares 0 with the NUL byte.
_PAD, _BOS, _EOS = 0, 254, 255
_DEFAULT_VOCABULARY = 384

# Zeros where no text can be: in front of the bos that opens the ids, or between an eos and a bos or the end of the ids.
_PADDING_OUTSIDE_TEXT = re.compile(rb"^\x00+(?=\xfe)|(?<=\xff)\x00+(?=\xfe|$)")


class PMNetTokenizer(PreTrainedTokenizer):
    r"""UTF-8 bytes as ids: an id below 256 is the value of a byte, pad is 0, bos 254 and eos 255.

    A text is encoded as bos, its bytes, eos, or as its bytes alone with add_special_tokens=False. A prompt to be
    continued must not end with eos: a tokenizer made with special_tokens_pattern="bos" leaves it out (for pipelines,
    and for lm-eval's HFLM with add_bos_token=True). Names of special tokens inside a text are text: "<eos>" is five
    bytes, unless split_special_tokens=False is passed. The ids of raw bytes are `list(data)`.

    Padding has the id of the NUL byte, so the attention mask, not the id, says what is padding: a NUL in a text has
    mask 1. Decoding drops ids that are no byte (256 and above) and bytes that are no UTF-8. With
    skip_special_tokens=True it leaves out bos and eos, and zeros where no text can be: before the bos at the start, and
    between an eos and a bos or the end. All other zeros are NUL characters and stay.

    In `tokenize` and `get_vocab` a printable ASCII byte is its own token, another byte reads like <0x0A>, and an id
    that no text has like <unused300>.

    Args:
        vocab_size: V, number of ids of the model, at least 256 (published: 384, and 256 for the copy models). When not
            given it is that of the config.json beside the tokenizer's files, or 384.
        model_config_file: the model's config.json, which `from_pretrained` finds in the folder of a PMNet.
        **kwargs: settings of every `PreTrainedTokenizer`, such as padding_side.

    Raises RequestError for a vocabulary below 256, special tokens at other ids, and a config.json that disagrees.
    Source: arXiv 2605.13370, released model.
    """

    # Found in the model's folder or on the hub as other tokenizers find their vocabulary.
    vocab_files_names = {"model_config_file": "config.json"}  # noqa: RUF012 (transformers' own protocol)
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 (transformers' own protocol)

    def __init__(self, vocab_size: int | None = None, model_config_file: str | None = None, **kwargs: Any) -> None:
        model = _model_fields(model_config_file)
        source = kwargs.get("name_or_path", "")
        if vocab_size is None:
            vocab_size, source = model.get("vocab_size", _DEFAULT_VOCABULARY), model_config_file
        if not isinstance(vocab_size, int) or vocab_size < _BYTES:
            raise RequestError(
                f"{source + ': ' if source else ''}a byte tokenizer needs a vocab_size of at least {_BYTES}, not"
                f" {vocab_size!r}; it is that of the model, 384 for the published PMNet"
            )
        named = {_BOS: kwargs.setdefault("bos_token", "<bos>"), _EOS: kwargs.setdefault("eos_token", "<eos>")}
        # Some scripts pad with eos; 0 is then the NUL byte alone.
        if str(kwargs.setdefault("pad_token", "<0x00>")) not in map(str, named.values()):
            named[_PAD] = kwargs["pad_token"]
        self._byte_tokens = [str(named.get(value, _byte_token(value))) for value in range(_BYTES)]
        unused = [f"<unused{index}>" for index in range(_BYTES, vocab_size)]
        self._ids = {token: index for index, token in enumerate(self._byte_tokens + unused)}
        if len(self._ids) != vocab_size:
            raise RequestError(
                f"names of special tokens must differ from other tokens, not {sorted(map(str, named.values()))}"
            )
        self._text = {token: bytes([value]) for value, token in enumerate(self._byte_tokens)}
        self._text.update({str(named[index]): str(named[index]).encode() for index in (_BOS, _EOS)})
        self._added_tokens_decoder = {index: _special(token) for index, token in named.items()}
        # User text decides nothing: see the class.
        kwargs.setdefault("split_special_tokens", True)
        kwargs.setdefault("special_tokens_pattern", "bos_eos")
        super().__init__(vocab_size=vocab_size, **kwargs)
        # transformers would not save it.
        self.init_kwargs["special_tokens_pattern"] = self.special_tokens_pattern
        self._require_published_ids()
        self._require_same(model)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> "PMNetTokenizer":
        """The tokenizer of a folder or of a model on the hub; a PMNet's config.json alone is enough.

        Raises RequestError for a file that is no JSON, and where the tokenizer and config.json disagree.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        except json.JSONDecodeError as error:
            raise RequestError(
                f"{pretrained_model_name_or_path}: tokenizer_config.json is not valid JSON ({error}); copy it again, or"
                " delete it: config.json alone is enough"
            ) from error

    @property
    def vocab_size(self) -> int:
        """V, number of ids; tokens that were added later are not counted."""
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, of all V ids and of tokens that were added later."""
        return {**self._ids, **self._added_tokens_encoder}

    def check_matches(self, config: PreTrainedConfig) -> None:
        """Raise RequestError, naming file and field, unless the model of `config` has the ids of this tokenizer.

        Compared are vocab_size, bos_token_id and eos_token_id. Ids that the config leaves open (null) fit. The padding
        id is not compared: masks say what is padding.
        """
        self._require_same(config.to_dict())

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or those of a sequence of ids; which are skipped, see the class."""
        if isinstance(ids, int):
            return self._convert_id_to_token(ids)
        ids = [int(index) for index in ids]
        if skip_special_tokens:
            extra = set(self.extra_special_tokens_ids)
            special = self.get_special_tokens_mask(ids, already_has_special_tokens=True)
            ids = [index for index, skip in zip(ids, special, strict=True) if not skip and index not in extra]
        return [self._convert_id_to_token(index) for index in ids]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens: bytes joined and read as UTF-8, special tokens by their names."""
        added = self._added_tokens_encoder
        parts = (self._text.get(token) or (token.encode() if token in added else b"") for token in tokens)
        return b"".join(parts).decode("utf-8", errors="ignore")

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for bos, eos and for zeros where no text can be (see the class), 0 elsewhere."""
        if not already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1)
        mask = [int(index in (_BOS, _EOS)) for index in token_ids_0]
        # Any byte stands for an id that is none.
        data = bytes(index if 0 <= index < _BYTES else 1 for index in token_ids_0)
        for padding in _PADDING_OUTSIDE_TEXT.finditer(data):
            mask[slice(*padding.span())] = [1] * (padding.end() - padding.start())
        return mask

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """There is no vocabulary file; returns an empty tuple."""
        del save_directory, filename_prefix
        return ()

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"the text holds U+{ord(text[error.start]):04X} at character {error.start}, half of a surrogate pair,"
                " which UTF-8 cannot encode; read the text again with the encoding that it is stored in"
            ) from error
        tokens = self._byte_tokens
        return [tokens[value] for value in data]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        if 0 <= index < _BYTES:
            return self._byte_tokens[index]
        added = self._added_tokens_decoder.get(index)
        return f"<unused{index}>" if added is None else added.content

    def _require_published_ids(self) -> None:
        for name, index in (("bos_token", _BOS), ("eos_token", _EOS)):
            found = getattr(self, f"{name}_id")
            if found != index:
                raise RequestError(
                    f"{self._file}: {name} {getattr(self, name)!r} has the id {found}, and in a byte tokenizer it is"
                    f" {index}; correct it, or delete the file: config.json alone is enough"
                )

    def _require_same(self, model: Mapping[str, Any]) -> None:
        own = {"vocab_size": len(self), "bos_token_id": _BOS, "eos_token_id": _EOS}
        for field, value in own.items():
            wanted = model.get(field)
            # A model may end at any of several ids.
            if wanted is None or value == wanted or (isinstance(wanted, list) and value in wanted):
                continue
            raise RequestError(
                f"{self._file} does not fit the model's config.json: {field} is {value} in the tokenizer and {wanted}"
                " in the model"
            )

    @property
    def _file(self) -> str:
        """Where the settings of this tokenizer are, for messages."""
        return str(Path(self.name_or_path, "tokenizer_config.json"))


def _model_fields(path: str | None) -> dict[str, Any]:
    """Fields of a PMNet's config.json; none without a file, or when it describes another architecture."""
    if path is None:
        return {}
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path} is not valid JSON ({error}); copy it again") from error
    return fields if isinstance(fields, dict) and fields.get("model_type") == PMNetConfig.model_type else {}


def _byte_token(value: int) -> str:
    """Printable ASCII is its own token; other bytes are written in hexadecimal."""
    return chr(value) if 0x20 <= value <= 0x7E else f"<0x{value:02X}>"


def _special(token: str | AddedToken) -> AddedToken:
    return AddedToken(str(token), special=True, normalized=False)


AutoTokenizer.register(PMNetConfig, PMNetTokenizer)
