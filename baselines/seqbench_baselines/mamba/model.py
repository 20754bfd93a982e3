"""Mamba with transformers' parameters and initialisation, and a forward computation that is fast on CPU.

Checkpoints of transformers' `MambaForCausalLM` load here and the other way round. Replaced are the scan, the
convolution, the cache (which continues a sequence by chunks of any length) and the treatment of padding (which is
inert on either side).

Precision: the residual stream, the convolution, the step sizes and the scan are computed in fp32 (in fp64 for an fp64
model) from the weights as they are stored; under bf16 autocast A_log, D, the step-size bias and the convolution are
therefore the fp32 master weights, and only the linear projections run in bf16.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import MambaForCausalLM as TransformersMamba
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.mamba.modeling_mamba import MambaBlock, MambaMixer, MambaRMSNorm
from transformers.utils import can_return_tuple

from seqbench.nn import (
    CarriedStateGeneration,
    RowPacking,
    StrictLoading,
    pack_rows,
    refuse_options,
    refuse_state_with_checkpointing,
)
from seqbench_baselines.mamba.cache import MambaCache
from seqbench_baselines.mamba.convolution import causal_convolution
from seqbench_kernels.selective_scan import selective_scan


class MambaForCausalLM(CarriedStateGeneration, StrictLoading, TransformersMamba):  # type: ignore[misc]
    """Mamba with a (tied) language-modelling head.

    The class name is that of transformers, so that a saved checkpoint names an architecture which other programs know.
    """

    # For the Trainer of transformers: the loss is the mean over the labels of the call, not of several calls.
    accepts_loss_kwargs = False

    def empty_state(self) -> MambaCache:
        """The state before the first token."""
        return MambaCache()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: MambaCache | None = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, length, vocab_size), or of the last `logits_to_keep` positions when that is not zero.

        Args:
            input_ids: (batch, length) int64, at least one token.
            attention_mask: (batch, at least length), zero for padding, which influences nothing.
            past_key_values: the state after earlier chunks; it is continued and updated in place.
            use_cache: return a state that continues this chunk.
            labels: (batch, length) equal to input_ids, -100 where there is no loss; shifted inside.
            logits_to_keep: number of positions at the end of the row, or 0 for all.
            options: arguments that other models of transformers have; none is supported.
        """
        refuse_options(options)
        length = input_ids.shape[1]
        packing = pack_rows(attention_mask, length)
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
        hidden = _normalise(self.backbone.norm_f, hidden[:, -logits_to_keep:])
        logits = self.lm_head(hidden.to(self.lm_head.weight.dtype))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)  # type: ignore[arg-type]

    def _run_blocks(self, hidden: Tensor, packing: RowPacking | None, cache: MambaCache | None) -> Tensor:
        if self.config.residual_in_fp32:
            hidden = _widen(hidden)
        states = []
        for index, block in enumerate(self.backbone.layers):
            carried = None if cache is None else cache.layer(index)
            assert isinstance(block, MambaBlock)
            if self.training and block.gradient_checkpointing:
                # transformers would checkpoint the block's own forward, which is not used here.
                checkpoint = cast(Callable[..., Any], block._gradient_checkpointing_func)
                hidden, after = checkpoint(_run_block, block, hidden, None, packing, False)
            else:
                hidden, after = _run_block(block, hidden, carried, packing, cache is not None)
            if after is not None:
                states.append(after)
        if cache is not None:
            batch, length = hidden.shape[:2]
            all_tokens = torch.full((batch,), length, device=hidden.device)
            cache.store(states, all_tokens if packing is None else packing.lengths)
        return hidden


def _run_block(
    block: MambaBlock,
    hidden: Tensor,
    carried: tuple[Tensor, Tensor] | None,
    packing: RowPacking | None,
    keep_state: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """A block with its norm and residual; arguments and result as `mix`."""
    mixed, after = mix(block.mixer, _normalise(block.norm, hidden), carried, packing, keep_state)
    return hidden + mixed, after


def mix(
    mixer: MambaMixer,
    hidden: Tensor,
    carried: tuple[Tensor, Tensor] | None,
    packing: RowPacking | None,
    keep_state: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """One Mamba mixer, arXiv 2312.00752, algorithm 2 and figure 3.

    Args:
        mixer: whose parameters are used.
        hidden: (batch, length, hidden_size), normalised, real tokens at the front of each row.
        carried: (batch, channels, conv_kernel - 1) and (batch, channels, state) after the tokens before, or None.
        packing: which of the tokens are real, or None when all are.
        keep_state: whether to return the states after the last real token of each row.

    Returns:
        (batch, length, hidden_size), and the two states or None.
    """
    channels, gate = mixer.in_proj(hidden).chunk(2, dim=-1)
    channels = _widen(channels)
    if carried is None:
        history = channels.new_zeros(channels.shape[0], mixer.conv_kernel_size - 1, channels.shape[2])
    else:
        history = carried[0].transpose(1, 2).to(channels.dtype)
    weight = mixer.conv1d.weight.squeeze(1).to(channels.dtype)
    bias = None if mixer.conv1d.bias is None else mixer.conv1d.bias.to(channels.dtype)
    convolved = mixer.act(causal_convolution(channels, history, weight, bias))
    narrow, B, C = mixer.x_proj(convolved.to(hidden.dtype)).split(
        (mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size), dim=-1
    )
    step_sizes = F.softplus(_widen(F.linear(narrow, mixer.dt_proj.weight)) + _widen(mixer.dt_proj.bias))
    if packing is not None:
        # A step of size zero leaves the state as it is: padding behind a row's last token then changes nothing.
        step_sizes = step_sizes * packing.mask.unsqueeze(-1)
    mixed, ssm_state = selective_scan(
        convolved, step_sizes, -_widen(mixer.A_log).exp(), B, C, mixer.D, None if carried is None else carried[1]
    )
    output = mixer.out_proj((mixed * mixer.act(_widen(gate))).to(hidden.dtype))
    if not keep_state:
        return output, None
    # A copy in any case: a view would keep the whole chunk's inputs alive as long as the state.
    newest = _newest(history, channels, packing).transpose(1, 2).clone(memory_format=torch.contiguous_format)
    return output, (newest, ssm_state)


def _newest(history: Tensor, channels: Tensor, packing: RowPacking | None) -> Tensor:
    """(batch, conv_kernel - 1, channels): the convolution's inputs up to each row's last real token."""
    extended, size = torch.cat((history, channels), dim=1), history.shape[1]
    if packing is None:
        return extended[:, extended.shape[1] - size :]
    index = packing.lengths.unsqueeze(1) + torch.arange(size, device=channels.device)
    return extended.gather(1, index.unsqueeze(-1).expand(-1, -1, extended.shape[2]))


def _normalise(norm: MambaRMSNorm, hidden: Tensor) -> Tensor:
    """Root-mean-square norm in at least fp32, returned in the dtype of its weight."""
    hidden = _widen(hidden)
    weight = norm.weight
    normalised = F.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), norm.variance_epsilon)
    return normalised.to(weight.dtype)


def _widen(tensor: Tensor) -> Tensor:
    """fp32, or fp64 where it is fp64 already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
