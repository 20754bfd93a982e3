"""Mamba with transformers' parameters and initialisation, and a forward computation that is fast on CPU.

Checkpoints of transformers' `MambaForCausalLM` load here and the other way round. Replaced are the scan, the
convolution, the cache (which continues a sequence by chunks of any length) and the treatment of padding (which is
inert on either side).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import MambaForCausalLM as TransformersMamba

from seqbench.nn import RowPacking
from seqbench_baselines.mamba.language_model import LayerState, StateSpaceLanguageModel, convolve, widen
from seqbench_kernels.selective_scan import selective_scan


class MambaForCausalLM(StateSpaceLanguageModel, TransformersMamba):  # type: ignore[misc]
    """Mamba with a (tied) language-modelling head.

    The class name is that of transformers, so that a saved checkpoint names an architecture which other programs know.
    """

    @staticmethod
    def mix(
        mixer: Any, hidden: Tensor, carried: LayerState | None, packing: RowPacking | None, keep_state: bool
    ) -> tuple[Tensor, LayerState | None]:
        """One Mamba mixer, arXiv 2312.00752, algorithm 2 and figure 3; arguments and result as in the base class.

        States: (batch, channels, conv_kernel - 1) and (batch, channels, state).
        """
        channels, gate = mixer.in_proj(hidden).chunk(2, dim=-1)
        convolved, conv_state = convolve(
            mixer.conv1d, widen(channels), None if carried is None else carried[0], packing, keep_state
        )
        convolved = mixer.act(convolved)
        narrow, B, C = mixer.x_proj(convolved.to(hidden.dtype)).split(
            (mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size), dim=-1
        )
        step_sizes = F.softplus(widen(F.linear(narrow, mixer.dt_proj.weight)) + widen(mixer.dt_proj.bias))
        if packing is not None:
            # A step of size zero leaves the state as it is: padding behind a row's last token then changes nothing.
            step_sizes = step_sizes * packing.mask.unsqueeze(-1)
        mixed, ssm_state = selective_scan(
            convolved, step_sizes, -widen(mixer.A_log).exp(), B, C, mixer.D, None if carried is None else carried[1]
        )
        output = mixer.out_proj((mixed * mixer.act(widen(gate))).to(hidden.dtype))
        return output, None if conv_state is None else (conv_state, ssm_state)
