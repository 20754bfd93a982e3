"""The harness's call over a model of transformers, without renaming its parameters or its class."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import TransformersKwargs

from seqbench.errors import RequestError
from seqbench.nn import STATE_NAME, CausalOutput, kept_positions, name_both_ways, pack_rows, take_state
from seqbench_baselines.hugging_face.carried_state import (
    NATIVE_NAMES,
    attends_to_everything,
    detach_state,
    state_of,
)

# Arguments of the harness's call besides those that `HarnessCall.forward` names. Whoever passes another one that the
# model knows (`generate` among them) gets transformers' own call.
_BESIDES = ("return_dict", "num_items_in_batch")
_MASK = "_seqbench_mask"


def adapt(model: PreTrainedModel, label: str, vocab_size: int) -> PreTrainedModel:
    """Give `model` the harness's call; weights, names and saving stay as they are.

    Args:
        model: any causal language model of transformers, changed in place.
        label: the model's name in messages.
        vocab_size: logits are cut to the first so many ids.
    """
    native = type(model)
    parameters = inspect.signature(native.forward).parameters
    # Of the class, so that stored weights that are loaded into it get them too.
    attributes = {
        "__module__": native.__module__,
        "harness_label": label,
        "harness_vocab_size": vocab_size,
        "takes_positions": "position_ids" in parameters,
        "known_arguments": _known(parameters),
        "state_argument": next((name for name in reversed(NATIVE_NAMES) if name in parameters), STATE_NAME),
        "continuation": None,
        "generating": False,
    }
    adapted = type(native.__name__, (HarnessCall, native), attributes)
    # `generate` reads from the signature which arguments a model takes.
    forward = functools.wraps(native.forward)(lambda self, *args, **kwargs: HarnessCall.forward(self, *args, **kwargs))
    adapted.forward = forward  # type: ignore[attr-defined]
    model.__class__ = adapted
    return model


def _known(parameters: Mapping[str, inspect.Parameter]) -> frozenset[str]:
    """The arguments that a call of transformers with these parameters does something with."""
    named = {name for name, parameter in parameters.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
    return frozenset(named | ({*TransformersKwargs.__optional_keys__} if len(named) < len(parameters) else set()))


class HarnessCall:
    """Mixed in before a model class of transformers.

    Padding: without a state, the real tokens of each row are moved to its front and no mask is passed, so that
    causality alone keeps padding out, whatever the architecture does with masks. With a state, padding is masked where
    the state is the keys and values of all tokens, and refused elsewhere.

    Continuing a sequence: some architectures forget their state when they get several tokens at once. The first time
    that a state is asked for, the model is tried on a few tokens; such a model is then fed one token at a time, and one
    that cannot continue at all raises RequestError.
    """

    harness_label: str
    harness_vocab_size: int
    takes_positions: bool
    known_arguments: frozenset[str]
    state_argument: str
    continuation: str | None
    # Inside `generate`, which is written for transformers' own call.
    generating: bool
    training: bool
    device: torch.device

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **arguments: Any,
    ) -> Any:
        """Logits (batch, length or `logits_to_keep`, vocabulary) and the state; see `ModelPlugin`.

        `labels` equal to input_ids, -100 where there is no loss, are shifted inside. The state may be named `cache`
        too. An argument that neither this call nor that of the model has raises TypeError.
        """
        past = take_state({"past_key_values": past_key_values, "cache": arguments.pop("cache", None)})
        arguments = {name: value for name, value in arguments.items() if value is not None}
        own = {name: arguments.pop(name) for name in _BESIDES if name in arguments}
        for name in [name for name in arguments if name not in self.known_arguments]:
            if arguments.pop(name) is not False:
                raise TypeError(f"{self.harness_label} has no argument {name!r}")
        if self.generating or input_ids is None or any(value is not False for value in arguments.values()):
            # Arguments that were not given are not passed on: not every model knows them.
            keeps = isinstance(logits_to_keep, Tensor) or logits_to_keep != 0
            named = {"labels": labels, self.state_argument: past, "logits_to_keep": logits_to_keep if keeps else None}
            arguments |= own | {name: value for name, value in named.items() if value is not None}
            output = super().forward(  # type: ignore[misc]
                input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **arguments
            )
            if self.generating:
                # Beam search goes by the width that the config has.
                outside = torch.arange(output.logits.shape[-1], device=self.device) >= self.harness_vocab_size
                output.logits = output.logits.masked_fill(outside, -torch.inf)
            return output
        if past is None and not use_cache:
            logits, state = self._fresh(input_ids, attention_mask), None
        else:
            logits, state = self._carried(input_ids, attention_mask, past)
        logits = logits[..., : self.harness_vocab_size]
        loss = None
        if labels is not None:
            counted = {"num_items_in_batch": own["num_items_in_batch"]} if "num_items_in_batch" in own else {}
            loss = self.loss_function(  # type: ignore[attr-defined]
                logits=logits, labels=labels, vocab_size=logits.shape[-1], **counted
            )
        output = CausalOutput(loss=loss, logits=kept_positions(logits, logits_to_keep), past_key_values=state)
        return output if own.get("return_dict", True) else output.to_tuple()

    def generate(self, *values: Any, **options: Any) -> Any:
        """As transformers has it; the state may be given under either name, and is returned under both."""
        if (state := take_state(options)) is not None:
            options[self.state_argument] = state
        self.generating = True
        try:
            return name_both_ways(super().generate(*values, **options))  # type: ignore[misc]
        finally:
            self.generating = False

    def _native(self, input_ids: Tensor, **arguments: Any) -> Any:
        return super().forward(input_ids=input_ids, return_dict=True, **arguments)  # type: ignore[misc]

    def _fresh(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        packing = pack_rows(attention_mask, input_ids.shape[1])
        if packing is None:
            return self._native(input_ids, use_cache=False).logits
        return packing.unpack(self._native(packing.pack(input_ids), use_cache=False).logits)

    def _carried(self, input_ids: Tensor, attention_mask: Tensor | None, past: Any) -> tuple[Tensor, Any]:
        mask = None if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
        if mask is not None and bool(mask.all()):
            mask = None
        one_at_a_time = self.try_continuation() == "tokens"
        if past is not None and one_at_a_time and input_ids.shape[1] > 1:
            if mask is not None:
                raise self._padding_refused()
            logits = []
            for step in range(input_ids.shape[1]):
                part, past = self._continue(input_ids[:, step : step + 1], past)
                logits.append(part)
            return torch.cat(logits, dim=1), past
        earlier = getattr(past, _MASK, None)
        if mask is None and earlier is None:
            return self._continue(input_ids, past)
        return self._continue_masked(input_ids, mask, past, earlier)

    def _continue(self, input_ids: Tensor, past: Any, **arguments: Any) -> tuple[Tensor, Any]:
        if past is not None:
            arguments[self.state_argument] = past
        output = self._native(input_ids, use_cache=True, **arguments)
        found = state_of(output)
        if found is None:
            raise RequestError(f"{self.harness_label} keeps no state between calls; evaluate it without carried state")
        detach_state(found[1])
        return output.logits, found[1]

    def _continue_masked(
        self, input_ids: Tensor, mask: Tensor | None, past: Any, earlier: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Padding among the tokens of this chunk or of the chunks before (`earlier`, one column per cached token)."""
        batch, length = input_ids.shape
        if past is not None and not attends_to_everything(past):
            raise self._padding_refused()
        if mask is None:
            mask = input_ids.new_ones(batch, length)
        if earlier is None:
            earlier = input_ids.new_ones(batch, 0 if past is None else past.get_seq_length())
        whole = torch.cat((earlier.to(mask.dtype), mask), dim=1)
        arguments = {"attention_mask": whole}
        if self.takes_positions:
            arguments["position_ids"] = (whole.long().cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
        logits, state = self._continue(input_ids, past, **arguments)
        if not attends_to_everything(state):
            raise self._padding_refused()
        setattr(state, _MASK, whole)
        return logits, state

    def _padding_refused(self) -> RequestError:
        return RequestError(
            f"{self.harness_label}: padding cannot be kept out of the state that it carries; give it rows of equal"
            " length, or one row at a time"
        )

    def try_continuation(self) -> str:
        """Say "chunks" or "tokens": what the model may be given at once when it continues. Tried once per model."""
        if self.continuation is None:
            training = self.training
            self.eval()  # type: ignore[attr-defined]
            try:
                with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                    self.continuation = self._try_continuations()
            finally:
                self.train(training)  # type: ignore[attr-defined]
        return self.continuation

    def _try_continuations(self) -> str:
        # Two rows: some architectures mix them up where one would do.
        tokens = torch.stack((torch.arange(12), 3 * torch.arange(12) + 1)).to(self.device) % self.harness_vocab_size
        expected = self._native(tokens, use_cache=False).logits[:, 4:]
        # How much the first four tokens matter to the others: a state that was lost would be off by that.
        effect = (self._native(tokens[:, 4:], use_cache=False).logits - expected).abs().max()
        # Losing a state of slow decay costs a hundredth of that; rounding, a millionth of the logits.
        allowed = 1e-4 * effect + 2e-6 * expected.abs().max()
        reason = "its output differs from that over the whole sequence"
        for mode, sizes in (("chunks", (4, 1, 3)), ("tokens", (1,) * 8)):
            try:
                _, state = self._continue(tokens[:, :4], None)
                parts = []
                for chunk in tokens[:, 4:].split(sizes, dim=1):
                    logits, state = self._continue(chunk, state)
                    parts.append(logits)
            # An architecture that refuses several tokens may take one; why it refuses is kept for the message.
            except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            continued = torch.cat(parts, dim=1)
            if continued.shape == expected.shape and (continued - expected).abs().max() <= allowed:
                return mode
        raise RequestError(f"{self.harness_label} cannot continue a sequence from its own state: {reason}")
