"""A trained model as a task's evaluation sees it."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.nn import evaluation_mode


class ModelPredictor:
    """Evaluation mode, no gradients, one device and precision for every model; implements `contracts.Predictor`."""

    def __init__(
        self, model: PreTrainedModel, device: torch.device, precision: str, attention_reach: int | None
    ) -> None:
        self._model, self._device, self._precision = model, device, precision
        self._attention_reach = attention_reach

    @property
    def attention_reach(self) -> int | None:
        """The largest distance the model's attention can bridge; None for full attention or recurrence."""
        return self._attention_reach

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """fp32 logits (batch, length, vocabulary) on the CPU."""
        if attention_mask is not None:
            attention_mask = attention_mask.to(self._device)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16")
        with torch.no_grad(), evaluation_mode(self._model), autocast:
            output = self._model(input_ids.to(self._device), attention_mask=attention_mask)
        return output.logits.float().cpu()
