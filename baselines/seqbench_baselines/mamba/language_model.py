"""What Mamba and Mamba-2 share: the causal-LM call over transformers' blocks, carried state and inert padding.

Precision: the residual stream, the convolution, the step sizes and the scan are computed in fp32 (in fp64 for an fp64
model) from the weights as they are stored; under bf16 autocast A_log, D, the step-size bias and the convolution are
therefore the fp32 master weights, and only the linear projections run in bf16.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.nn import (
    BackboneOutput,
    CausalCall,
    RowPacking,
    StrictLoading,
    pack_rows,
    refuse_state_with_checkpointing,
)
from seqbench_baselines.mamba.cache import MambaCache
from seqbench_baselines.mamba.convolution import causal_convolution

# The states of a layer: of its convolution and of its scan.
LayerState: TypeAlias = tuple[Tensor, Tensor]


# StrictLoading comes first: behind a GenerationMixin, transformers' own from_pretrained would come before it.
class StateSpaceLanguageModel(StrictLoading, CausalCall):
    """Name it before the model class of transformers, whose parameters and initialisation are used."""

    # What transformers' classes have.
    backbone: Any
    training: bool

    @staticmethod
    def mix(
        mixer: Any, hidden: Tensor, carried: LayerState | None, packing: RowPacking | None, keep_state: bool
    ) -> tuple[Tensor, LayerState | None]:
        """What the model's mixers compute.

        Args:
            mixer: whose parameters are used.
            hidden: (batch, length, hidden_size), normalised, real tokens at the front of each row.
            carried: the states after the tokens before, or None.
            packing: which of the tokens are real, or None when all are.
            keep_state: whether to return the states after the last real token of each row.

        Returns:
            (batch, length, hidden_size), and the two states or None.
        """
        raise NotImplementedError

    def empty_state(self) -> MambaCache:
        """The state before the first token."""
        return MambaCache()

    def run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: MambaCache | None, use_cache: bool
    ) -> BackboneOutput:
        """Normalised hidden states (batch, length, hidden_size) and the state; arguments as `forward`."""
        packing = pack_rows(attention_mask, input_ids.shape[1])
        if packing is not None:
            input_ids = packing.pack(input_ids)
        cache = past_key_values
        if cache is None and use_cache:
            cache = self.empty_state()
        if self.training and cache is not None:
            refuse_state_with_checkpointing(self.backbone.layers)
        hidden = self._run_blocks(self.backbone.embeddings(input_ids), packing, cache)
        if packing is not None:
            hidden = packing.unpack(hidden)
        normalised = normalise(self.backbone.norm_f, hidden).to(self.lm_head.weight.dtype)
        return BackboneOutput(last_hidden_state=normalised, past_key_values=cache)

    def _run_blocks(self, hidden: Tensor, packing: RowPacking | None, cache: MambaCache | None) -> Tensor:
        if self.config.residual_in_fp32:
            hidden = widen(hidden)
        states = []
        for index, block in enumerate(self.backbone.layers):
            carried = None if cache is None else cache.layer(index)
            if self.training and block.gradient_checkpointing:
                # transformers would checkpoint the block's own forward, which is not used here.
                checkpoint = cast(Callable[..., Any], block._gradient_checkpointing_func)
                hidden, after = checkpoint(_run_block, self.mix, block, hidden, None, packing, False)
            else:
                hidden, after = _run_block(self.mix, block, hidden, carried, packing, cache is not None)
            if after is not None:
                states.append(after)
        if cache is not None:
            batch, length = hidden.shape[:2]
            all_tokens = torch.full((batch,), length, device=hidden.device)
            cache.store(states, all_tokens if packing is None else packing.lengths)
        return hidden


def _run_block(
    mix: Callable[..., tuple[Tensor, LayerState | None]],
    block: Any,
    hidden: Tensor,
    carried: LayerState | None,
    packing: RowPacking | None,
    keep_state: bool,
) -> tuple[Tensor, LayerState | None]:
    """A block with its norm and residual; arguments and result as `StateSpaceLanguageModel.mix`."""
    mixed, after = mix(block.mixer, normalise(block.norm, hidden), carried, packing, keep_state)
    return hidden + mixed, after


def convolve(
    conv1d: nn.Conv1d, channels: Tensor, carried: Tensor | None, packing: RowPacking | None, keep_state: bool
) -> tuple[Tensor, Tensor | None]:
    """The short convolution with the parameters of `conv1d`, before its activation.

    Args:
        conv1d: whose weight (channels, 1, taps) and bias are used.
        channels: (batch, length, channels).
        carried: (batch, channels, taps - 1), the inputs before these, or None at the start of a sequence.
        packing: which of the tokens are real, or None when all are.
        keep_state: whether to return the newest inputs.

    Returns:
        (batch, length, channels), and (batch, channels, taps - 1) up to each row's last real token, or None.
    """
    if carried is None:
        history = channels.new_zeros(channels.shape[0], conv1d.kernel_size[0] - 1, channels.shape[2])
    else:
        history = carried.transpose(1, 2).to(channels.dtype)
    weight = conv1d.weight.squeeze(1).to(channels.dtype)
    bias = None if conv1d.bias is None else conv1d.bias.to(channels.dtype)
    convolved = causal_convolution(channels, history, weight, bias)
    if not keep_state:
        return convolved, None
    # A copy in any case: a view would keep the whole chunk's inputs alive as long as the state.
    newest = _newest(history, channels, packing).transpose(1, 2).clone(memory_format=torch.contiguous_format)
    return convolved, newest


def _newest(history: Tensor, channels: Tensor, packing: RowPacking | None) -> Tensor:
    """(batch, conv_kernel - 1, channels): the convolution's inputs up to each row's last real token."""
    extended, size = torch.cat((history, channels), dim=1), history.shape[1]
    if packing is None:
        return extended[:, extended.shape[1] - size :]
    index = packing.lengths.unsqueeze(1) + torch.arange(size, device=channels.device)
    return extended.gather(1, index.unsqueeze(-1).expand(-1, -1, extended.shape[2]))


def normalise(norm: Any, hidden: Tensor) -> Tensor:
    """Root-mean-square norm in at least fp32, returned in the dtype of its weight."""
    hidden = widen(hidden)
    weight = norm.weight
    normalised = F.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), norm.variance_epsilon)
    return normalised.to(weight.dtype)


def widen(tensor: Tensor) -> Tensor:
    """fp32, or fp64 where it is fp64 already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
