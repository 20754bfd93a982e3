"""A model's call as transformers knows it: the carried state under either of its names, and nothing swallowed.

transformers 5.24 renames `past_key_values` to `cache`, in calls, in outputs and in `generate`. Models of this project
take and give both, whichever release is installed. What the installed one says, and what belongs together, is decided
here and nowhere else.
"""

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

STATE_NAMES = ("past_key_values", "cache")


def _name_in(output_class: type) -> str:
    """The name that a release gives the state in its outputs."""
    fields = {field.name for field in dataclasses.fields(output_class)}
    return next(name for name in STATE_NAMES if name in fields)


# The name in the installed release of transformers, and the one that it does not use.
STATE_NAME = _name_in(CausalLMOutputWithPast)
_OTHER_NAME = next(name for name in STATE_NAMES if name != STATE_NAME)

Call = TypeVar("Call", bound=Callable[..., Any])


def take_state(arguments: dict[str, Any]) -> Any:
    """Take the carried state out of keyword arguments, under whichever name it is there; None for none.

    Raises TypeError when both names are there with different states.
    """
    given = [state for state in (arguments.pop(name, None) for name in STATE_NAMES) if state is not None]
    if len(given) == 2 and given[0] is not given[1]:
        raise TypeError(
            f"{' and '.join(STATE_NAMES)} are two names of one argument, the carried state, and were given different"
            " ones; give one of them"
        )
    return given[0] if given else None


def state_of(output: Any) -> Any:
    """The carried state in a model's output, whichever name it has there; None for none."""
    return next((getattr(output, name) for name in (STATE_NAME, _OTHER_NAME) if hasattr(output, name)), None)


def state_argument(model: nn.Module) -> str:
    """The name under which `model` takes the carried state: the installed release's, unless it has only the other one.

    A model that takes neither by name is called as transformers itself would.
    """
    parameters = inspect.signature(model.forward).parameters
    return _OTHER_NAME if _OTHER_NAME in parameters and STATE_NAME not in parameters else STATE_NAME


def transformers_call(forward: Call) -> Call:
    """The call of a model whose `forward` takes the carried state as `past_key_values`.

    The caller may name it `cache` as well, and ask for a tuple by `return_dict=False`. An argument that `forward` does
    not have raises TypeError, unless it is None or False: wrappers pass all that they know, most of it unset.
    """
    parameters = inspect.signature(forward).parameters
    # Among the values behind `self`.
    place = list(parameters).index("past_key_values") - 1
    run = can_return_tuple(forward)

    @functools.wraps(forward)
    def call(self: Any, *values: Any, **named: Any) -> Any:
        if "cache" in named:
            if len(values) > place:
                state = take_state({"past_key_values": values[place], "cache": named.pop("cache")})
                values = (*values[:place], state, *values[place + 1 :])
            else:
                named["past_key_values"] = take_state(named)
        for name in [name for name in named if name not in parameters and name != "return_dict"]:
            if named[name] is not None and named[name] is not False:
                raise TypeError(f"the model has no argument {name!r}")
            del named[name]
        return run(self, *values, **named)

    # Trainer and `generate` of transformers read from the signature what a model takes.
    cache = parameters["past_key_values"].replace(name="cache", kind=inspect.Parameter.KEYWORD_ONLY, default=None)
    call.__signature__ = inspect.Signature([*parameters.values(), cache])  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def kept_positions(values: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """The positions of (batch, length, ...) that `logits_to_keep` asks for: the last ones, 0 for all, or (kept,) int64.

    Raises ValueError for a negative number.
    """
    if isinstance(logits_to_keep, Tensor):
        return values[:, logits_to_keep]
    if logits_to_keep < 0:
        raise ValueError(f"logits_to_keep is {logits_to_keep}; give a number of positions, or 0 for all")
    return values[:, -logits_to_keep:]


class StateUnderBothNames:
    """Mixed in before an output class of transformers: the state has both names, as attribute, item and argument."""

    def __init__(self, *values: Any, **named: Any) -> None:
        if any(name in named for name in STATE_NAMES):
            named[STATE_NAME] = take_state(named)
        super().__init__(*values, **named)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_installed(key))  # type: ignore[misc]

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(_installed(key))  # type: ignore[misc]

    def get(self, key: Any, default: Any = None) -> Any:
        """The item `key`, or `default`."""
        return super().get(_installed(key), default)  # type: ignore[misc]


setattr(StateUnderBothNames, _OTHER_NAME, property(operator.attrgetter(STATE_NAME)))


@dataclass
class _BackboneOutput(BaseModelOutputWithPast):
    auxiliary_loss: Tensor | None = None


@dataclass
class _CausalOutput(CausalLMOutputWithPast):
    auxiliary_loss: Tensor | None = None


class BackboneOutput(StateUnderBothNames, _BackboneOutput):
    """Normalised hidden states (batch, length, hidden_size), the carried state, and the auxiliary loss of each row,
    (batch,), in models that have one.
    """


class CausalOutput(StateUnderBothNames, _CausalOutput):
    """Loss, logits (batch, length, vocab_size), the carried state, and the auxiliary loss of each row, (batch,), in
    models that have one. It is no part of `loss`.
    """


class GeneratedTokens(StateUnderBothNames, GenerateDecoderOnlyOutput):
    """What `generate` returns of a search without beams."""


class GeneratedBeams(StateUnderBothNames, GenerateBeamDecoderOnlyOutput):
    """What `generate` returns of a search with beams."""


_GENERATED: Mapping[type, type] = {
    GenerateDecoderOnlyOutput: GeneratedTokens,
    GenerateBeamDecoderOnlyOutput: GeneratedBeams,
}


def name_both_ways(generated: Any) -> Any:
    """What `generate` returned, with the state under both names where there is one."""
    output_class = _GENERATED.get(type(generated))
    return generated if output_class is None else output_class(**generated)


def _installed(key: Any) -> Any:
    return STATE_NAME if isinstance(key, str) and key == _OTHER_NAME else key
