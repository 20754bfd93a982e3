"""`generate` of transformers, from a carried state of any kind."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast

from seqbench.nn.calls import STATE_NAME, name_both_ways, state_of, take_state
from seqbench.nn.state import CarriedState


class CarriedStateGeneration(GenerationMixin):
    """Greedy search, sampling and beams that feed the prompt once and then one token a step.

    For a model whose call is a `transformers_call` that takes input_ids, attention_mask, past_key_values, use_cache and
    logits_to_keep, and whose padding is inert. Name it before the model class among the bases, and give `empty_state`.

    Prompts of different length may be padded on either side. A state that an earlier call returned goes on where it
    ended: `past_key_values`, or `cache` as transformers names it from 5.24 on, comes with the whole sequence so far, or
    with its new tokens and an attention_mask over the whole sequence, and only what the state has not seen is fed. The
    state is updated in place, and its rows are repeated where `num_beams` or `num_return_sequences` ask for it. After
    `generate` it has seen all tokens but the last one.

    What is padding is said by attention_mask alone; without it all tokens are real, whatever the padding id is.

    Methods that take back tokens (assisted decoding) are refused: a state of constant size cannot go back.
    """

    _is_stateful = True
    # Values of transformers' GenerationMode, which its refusal of others prints.
    _supported_generation_modes = ("greedy_search", "sample", "beam_search", "beam_sample")

    @classmethod
    def can_generate(cls) -> bool:
        """True; transformers looks at the names of the bases alone."""
        return True

    def empty_state(self) -> CarriedState:
        """The state before the first token."""
        raise NotImplementedError(f"{type(self).__name__} must say what its empty state is")

    def generate(  # type: ignore[override]
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **options: Any
    ) -> Any:
        """As transformers has it.

        The state is used unless this call says `use_cache=False`, which gives the same tokens and feeds the whole
        sequence at each step. What config.json and generation_config.json say of use_cache does not count: published
        ones say false for the sake of training.
        """
        use_cache = options.pop("use_cache", None) is not False
        if (state := take_state(options)) is not None:
            options[STATE_NAME] = state
        if generation_config is None:
            options["use_cache"] = use_cache
        else:
            generation_config = copy.deepcopy(generation_config)
            generation_config.use_cache = use_cache
        return name_both_ways(super().generate(inputs, generation_config, **options))  # type: ignore[misc]

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: CarriedState | None = None,
        cache: CarriedState | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 1,
        is_first_iteration: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """The next call after the prompt: one token, or without a state the whole sequence."""
        del next_sequence_length, is_first_iteration
        state = take_state({"past_key_values": past_key_values, "cache": cache})
        if state is None:
            input_ids, attention_mask = _align_right(input_ids, _real(input_ids, attention_mask))
        else:
            input_ids, attention_mask = input_ids[:, -1:], None
        return {
            **self._placed(input_ids, attention_mask),
            STATE_NAME: state,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **{name: value for name, value in options.items() if value is not None},
        }

    def _prepare_attention_mask_for_generation(  # type: ignore[override]
        self, inputs_tensor: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Tensor:
        """The mask where none is given; transformers would guess it from the padding id, which may be a byte."""
        del generation_config, model_kwargs
        return torch.ones_like(inputs_tensor)

    def _prepare_cache_for_generation(  # type: ignore[override]
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """The state that the prompt is fed to; transformers would make a cache of keys and values."""
        del generation_mode, max_cache_length
        own = type(self).__name__
        if generation_config.is_assistant:
            raise ValueError(f"{own} cannot draft for another model: its state cannot take tokens back")
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r} is not for {own}, which generates"
                " from its own state; leave it out"
            )
        state, use_cache = model_kwargs.get(STATE_NAME), generation_config.use_cache
        if generation_config.prefill_chunk_size is not None and not use_cache:
            raise ValueError("prefill_chunk_size needs the carried state; leave out use_cache=False")
        if state is None:
            if use_cache:
                model_kwargs[STATE_NAME] = self.empty_state()
            return
        if not use_cache:
            raise ValueError("a state to go on from is not for use_cache=False; leave out one of them")
        if not isinstance(state, type(self.empty_state())):
            raise ValueError(
                f"the state to go on from is a {type(state).__name__}; {own} continues the state that a call of it"
                f" returned, a {type(self.empty_state()).__name__}"
            )
        _repeat_rows(state, batch_size, max(generation_config.num_beams, generation_config.num_return_sequences))

    def _prefill(
        self,
        input_ids: Tensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> CausalLMOutputWithPast:
        """Feed what the state has not seen, in chunks if asked to; the logits of the last token of each row."""
        del is_first_iteration
        state = model_kwargs.get(STATE_NAME)
        if state is None:
            inputs = self.prepare_inputs_for_generation(input_ids, **model_kwargs)
            return self(**inputs, return_dict=True)  # type: ignore[operator]
        mask = model_kwargs.get("attention_mask")
        # A mask without padding may have been dropped by transformers, which then keeps its width.
        covered = getattr(generation_config, "_mask_length", input_ids.shape[1]) if mask is None else mask.shape[1]
        _require_cover(covered, input_ids)
        real = _real(input_ids, mask)
        if mask is not None and bool((mask != 0).all()):
            mask = None
        input_ids, mask = _align_right(input_ids, _unseen(real, mask, covered, state.seen))
        size = generation_config.prefill_chunk_size or input_ids.shape[1]
        others = self.prepare_inputs_for_generation(input_ids, **model_kwargs)
        for start in range(0, input_ids.shape[1], size):
            places = slice(start, start + size)
            chunk = self._placed(input_ids[:, places], None if mask is None else mask[:, places])
            output = self(**{**others, **chunk}, return_dict=True)  # type: ignore[operator]
            others[STATE_NAME] = state_of(output)
        return output

    def _placed(self, input_ids: Tensor, mask: Tensor | None) -> dict[str, Tensor | None]:
        """On the model's device: `generate` may be given a prompt on another one."""
        device = self.device  # type: ignore[attr-defined]
        return {"input_ids": input_ids.to(device), "attention_mask": None if mask is None else mask.to(device)}


def _real(input_ids: Tensor, mask: Tensor | None) -> Tensor:
    """(batch, length) bool: which tokens are no padding."""
    if mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    _require_cover(mask.shape[1], input_ids)
    return mask[:, -input_ids.shape[1] :] != 0


def _require_cover(covered: int, input_ids: Tensor) -> None:
    if covered < input_ids.shape[1]:
        raise ValueError(f"the attention_mask has {covered} places and the prompt {input_ids.shape[1]}")


def _unseen(real: Tensor, mask: Tensor | None, covered: int, seen: Tensor | None) -> Tensor:
    """(batch, length) bool: the real tokens that the state has not seen.

    Args:
        real: (batch, length) bool, the real tokens among the given ones, which end a sequence of `covered` places.
        mask: (batch, covered), non-zero for real tokens; None when all are.
        covered: places of the whole sequence, or `length` when the state is empty.
        seen: (batch,) tokens that the state has seen, or None for none.
    """
    if seen is None:
        return real
    seen, length = seen.to(real.device), real.shape[1]
    if mask is None:
        before = torch.full_like(seen, covered - length)
        if (seen != seen[0]).any():
            raise ValueError(
                f"the rows of the state have seen {seen.tolist()} tokens: give an attention_mask over the whole"
                " sequence"
            )
    else:
        before = (mask[:, : covered - length] != 0).sum(dim=1)
    if (before > seen).any():
        raise ValueError(
            f"the rows of the state have seen {seen.tolist()} tokens, and {before.tolist()} come before the given ones;"
            " give the missing ones too (the last token that was generated has not been fed)"
        )
    return real & (before.unsqueeze(1) + real.cumsum(dim=1) > seen.unsqueeze(1))


def _align_right(input_ids: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
    """The wanted tokens of each row, the last one in the last place, and their mask (None when nothing is padded)."""
    counts = wanted.sum(dim=1)
    if not counts.all():
        row = int((counts == 0).nonzero()[0])
        raise ValueError(
            f"row {row} has no token to go on from: its prompt is empty or padding, or the state has seen all of it\n"
            "give the whole sequence so far, or its new tokens with an attention_mask over the whole sequence"
        )
    width = int(counts.max())
    order = wanted.to(torch.int8).argsort(dim=1, stable=True)[:, -width:]
    mask = wanted.gather(1, order)
    return input_ids.gather(1, order), None if bool(mask.all()) else mask.long()


def _repeat_rows(state: CarriedState, batch: int, copies: int) -> None:
    """Give a state of `batch` rows the rows that `generate` gave the prompt: each `copies` times."""
    if state.seen is None:
        return
    rows = len(state.seen)
    if rows not in (batch, batch * copies):
        raise ValueError(f"the state holds {rows} rows and the prompt {batch}; its reorder_cache picks rows")
    if rows != batch * copies:
        state.reorder_cache(torch.arange(rows, device=state.seen.device).repeat_interleave(copies))
