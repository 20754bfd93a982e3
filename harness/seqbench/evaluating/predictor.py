"""A trained model as a task's evaluation sees it."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from seqbench.contracts import ModelPlugin, PredictedChunk
from seqbench.errors import RequestError, RunFailure
from seqbench.evaluating.streaming import stream
from seqbench.nn import evaluation_mode, state_of
from seqbench.store.records import EvaluationRecords

# How far an evaluation is: done, total, and what is counted.
Tell = Callable[[float, float, str], None]


class ModelPredictor:
    """Evaluation mode, no gradients, one device and precision for every model; implements `contracts.Predictor`.

    Args:
        model: on `device`.
        device, precision: of the run.
        attention_reach: as the plugin declares.
        state_bytes: bytes of carried state after a number of tokens, as the plugin declares.
        records: where parts of a long evaluation are kept; None keeps nothing.
        tell: told how far a long evaluation is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        precision: str,
        attention_reach: int | None,
        state_bytes: Callable[[int], int],
        records: EvaluationRecords | None = None,
        tell: Tell = lambda done, total, what: None,
    ) -> None:
        self.model = model
        self._device, self._precision = device, precision
        self._attention_reach, self._state_bytes = attention_reach, state_bytes
        self._records, self._tell = records, tell

    @classmethod
    def of(
        cls,
        plugin: ModelPlugin[Any],
        config: Any,
        model: PreTrainedModel,
        device: torch.device,
        precision: str,
        **where: Any,
    ) -> Self:
        """The model of that config, moved to `device`; `where` are `records` and `tell`."""
        nn.Module.to(model, device)
        reach = plugin.attention_reach(config)
        return cls(model, device, precision, reach, lambda length: plugin.state_bytes(config, length), **where)

    @property
    def attention_reach(self) -> int | None:
        """The largest distance the model's attention can bridge; None for full attention or recurrence."""
        return self._attention_reach

    @functools.cached_property
    def carries_state(self) -> bool:
        """Whether the model returns a state that continues a sequence; two tokens find it out."""
        tokens = torch.zeros(1, 2, dtype=torch.int64, device=self._device)
        with torch.no_grad(), evaluation_mode(self.model), self._autocast():
            try:
                output = self.model(tokens, use_cache=True)
            except (RequestError, NotImplementedError):
                # A model whose state is not exact refuses to hand it out.
                return False
        return state_of(output) is not None

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """fp32 logits (batch, length, vocabulary) on the CPU."""
        if attention_mask is not None:
            attention_mask = attention_mask.to(self._device)
        with torch.no_grad(), evaluation_mode(self.model), self._autocast():
            output = self.model(input_ids.to(self._device), attention_mask=attention_mask)
        return output.logits.float().cpu()

    def stream(
        self, input_ids: Tensor | Iterable[Tensor | np.ndarray[Any, Any]], chunk_length: int
    ) -> Iterator[PredictedChunk]:
        """Logits of a sequence of any length, chunk by chunk, with the state carried on; see `streaming`."""
        steps = stream(self.model, input_ids, chunk_length=chunk_length)
        while True:
            # Autocast must not be left on in the caller between two steps.
            with self._autocast():
                step = next(steps, None)
            if step is None:
                return
            yield PredictedChunk(step.start, step.input_ids.cpu(), step.logits.float().cpu())
            del step

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Prompts and what `generate` of transformers writes behind them, on the CPU."""
        model: Any = self.model
        if not model.can_generate():
            raise RunFailure("no-generation", f"{type(model).__name__} cannot generate text: it is no GenerationMixin")
        with torch.no_grad(), evaluation_mode(self.model), self._autocast():
            return model.generate(
                input_ids.to(self._device), attention_mask=attention_mask.to(self._device), **options
            ).cpu()

    def state_bytes(self, length: int) -> int:
        """Bytes of carried state that one sequence holds after `length` tokens."""
        return self._state_bytes(length)

    def record(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What `compute` returns; from an earlier process of the same run where that got as far."""
        if self._records is None:
            return dict(compute())
        return self._records.get(key, compute)

    def progress(self, done: float, total: float, what: str) -> None:
        """Pass on how far the evaluation is."""
        self._tell(done, total, what)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16")
