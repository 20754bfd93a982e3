"""Mamba-2 with transformers' parameters and initialisation, and a forward computation that is fast on CPU.

Checkpoints of transformers' `Mamba2ForCausalLM` load here and the other way round. Replaced are the scan, the
convolution, the cache (which continues a sequence by chunks of any length) and the treatment of padding (which is
inert on either side).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import Mamba2ForCausalLM as TransformersMamba2
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

from seqbench.nn import RowPacking
from seqbench_baselines.mamba.language_model import LayerState, StateSpaceLanguageModel, convolve, widen
from seqbench_kernels.ssd_scan import ssd_scan


def _gated_norm(norm: MambaRMSNormGated, mixed: Tensor, gate: Tensor, groups: int) -> Tensor:
    """Root-mean-square norm, per group, of the gated channels, in at least fp32.

    The norm of transformers before 5.23 takes all groups together, other than the authors' code.
    """
    gated = (mixed * F.silu(widen(gate))).unflatten(-1, (groups, -1))
    normalised = F.rms_norm(gated, gated.shape[-1:], eps=norm.variance_epsilon).flatten(-2)
    return normalised * widen(norm.weight)


class Mamba2ForCausalLM(StateSpaceLanguageModel, TransformersMamba2):  # type: ignore[misc]
    """Mamba-2 with a (tied) language-modelling head.

    The class name is that of transformers, so that a saved checkpoint names an architecture which other programs know.
    """

    @staticmethod
    def mix(
        mixer: Any, hidden: Tensor, carried: LayerState | None, packing: RowPacking | None, keep_state: bool
    ) -> tuple[Tensor, LayerState | None]:
        """One Mamba-2 mixer, arXiv 2405.21060, section 7.1 and figure 6; arguments and result as in the base class.

        States: (batch, convolved channels, conv_kernel - 1) and (batch, heads, head_dim, state).
        """
        projected = mixer.in_proj(hidden)
        gate, channels, steps = projected.split((mixer.intermediate_size, mixer.conv_dim, mixer.num_heads), dim=-1)
        convolved, conv_state = convolve(
            mixer.conv1d, widen(channels), None if carried is None else carried[0], packing, keep_state
        )
        maps = mixer.n_groups * mixer.ssm_state_size
        x, B, C = mixer.act(convolved).split((mixer.intermediate_size, maps, maps), dim=-1)
        step_sizes = F.softplus(widen(steps) + widen(mixer.dt_bias)).clamp(*mixer.time_step_limit)
        if packing is not None:
            # A step of size zero leaves the state as it is: padding behind a row's last token then changes nothing.
            step_sizes = step_sizes * packing.mask.unsqueeze(-1)
        mixed, ssm_state = ssd_scan(
            x.unflatten(-1, (mixer.num_heads, mixer.head_dim)),
            step_sizes,
            -widen(mixer.A_log).exp(),
            B.unflatten(-1, (mixer.n_groups, -1)),
            C.unflatten(-1, (mixer.n_groups, -1)),
            mixer.D,
            None if carried is None else carried[1],
        )
        output = mixer.out_proj(_gated_norm(mixer.norm, mixed.flatten(2), gate, mixer.n_groups).to(hidden.dtype))
        return output, None if conv_state is None else (conv_state, ssm_state)
