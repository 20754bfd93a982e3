"""What Mamba and Mamba-2 share: settings, the short convolution inside, first values, and transformers' format.

Precision: the residual stream, the norms, the convolution, the step sizes and the scan are computed in fp32 (in fp64
for an fp64 model) from the weights as they are stored; under bf16 autocast A_log, D, the step-size bias and the
convolution are therefore the fp32 master weights, and only the linear projections run in bf16.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Layout, Mixer, MixerLayer, MixerPlugin, causal_taps

# Field of a config of transformers -> setting.
_ALIKE = "vocab_size hidden_size num_hidden_layers expand state_size use_bias use_conv_bias time_step_min time_step_max"
_NAMES = {name: name for name in (*_ALIKE.split(), "initializer_range", "tie_word_embeddings")}
_NAMES |= {"conv_kernel": "short_convolution", "layer_norm_epsilon": "norm_epsilon"}
# Field of a config of transformers -> the one value that is computed here.
_COMPUTED = {"hidden_act": "silu", "residual_in_fp32": True}
_DEFAULTS = {"num_hidden_layers": 8, "feed_forward": "none", "short_convolution": 4, "norm_epsilon": 1e-5}
_DEFAULTS |= {"initializer_range": 0.1}
# Prefix of a parameter's name -> its group.
_GROUPS = {"in_proj": "projections", "out_proj": "projections", "conv1d": "convolution", "norm": "norm", "": "scan"}
# Bound of the uniform draw of transformers' kaiming_uniform_ with this: 1 / sqrt(inputs of an output).
_AS_TORCH_DRAWS = math.sqrt(5)


@dataclass(frozen=True)
class StateSpaceSettings:
    """Of a state-space mixer; fields bear the names of transformers' configs."""

    expand: int = setting(2, "channels of the scan per unit of the hidden size", minimum=1)
    state_size: int = setting(16, "state per channel", minimum=1)
    use_bias: bool = setting(False, "whether the input and output projections have a bias")
    use_conv_bias: bool = setting(True, "whether the convolution has a bias")
    time_step_min: float = setting(0.001, "smallest initial step size", minimum=1e-6, maximum=1)
    time_step_max: float = setting(0.1, "largest initial step size", minimum=1e-6, maximum=10)


class StateSpaceMixer(Mixer[Any]):
    """A mixer with a short convolution inside, before its scan."""

    short_convolution_inside = True
    defaults: ClassVar[Mapping[str, Any]] = _DEFAULTS
    parameter_groups: ClassVar[Mapping[str, str]] = _GROUPS
    conv1d: nn.Conv1d | None
    out_proj: nn.Linear

    def convolution(self, channels: int) -> nn.Conv1d | None:
        """The parameters of the short convolution; None without one."""
        taps = self.settings.short_convolution
        if taps == 0:
            return None
        return nn.Conv1d(channels, channels, taps, groups=channels, bias=self.settings.use_conv_bias)

    def activated(self, channels: Tensor, before: Tensor | None, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        """SiLU of the channels (batch, length, channels) behind their convolution, and what that carries on."""
        if self.conv1d is None:
            return F.silu(channels), None
        taps = self.conv1d.weight.squeeze(1)
        after = chunk.newest(channels, before, taps.shape[1] - 1)
        return F.silu(causal_taps(channels, before, taps, self.conv1d.bias)), after

    def initialise(self) -> None:
        """Convolution and output projection as torch draws them, the convolution's bias zero."""
        init.kaiming_uniform_(self.out_proj.weight, a=_AS_TORCH_DRAWS)
        if self.conv1d is not None:
            init.kaiming_uniform_(self.conv1d.weight, a=_AS_TORCH_DRAWS)

    def draw_step_sizes(self, bias: Tensor) -> None:
        """Give `bias` values whose softplus are step sizes, log-uniform between the bounds of the settings."""
        low, high = math.log(self.settings.time_step_min), math.log(self.settings.time_step_max)
        sizes = torch.empty(bias.shape, device=bias.device).uniform_(low, high).exp()
        init.copy_(bias, sizes + (-torch.expm1(-sizes)).log())

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError for step sizes in the wrong order."""
        low, high = settings.time_step_min, settings.time_step_max
        if low > high:
            raise RequestError(f"time_step_min ({low:g}) must not exceed time_step_max ({high:g})")

    @classmethod
    def declared(cls, settings: Any, decays: str, scan_path: Callable[[str], str]) -> dict[str, str]:
        """Confounds of a mixer with those initial decays and that path of the scan on a device."""
        path = scan_path("cpu")
        if torch.cuda.is_available():
            path = f"on cpu: {path}; on cuda: {scan_path('cuda')}"
        return {
            "initialisation": f"{decays}; step sizes log-uniform from {settings.time_step_min:g} to"
            f" {settings.time_step_max:g}; embedding normal, deviation {settings.initializer_range:g}",
            "kernel path": path,
        }


class StateSpaceLayer(MixerLayer):
    """A layer with the names of transformers' checkpoints, whose residual stream is never narrower than fp32."""

    layout = Layout(backbone="backbone", embedding="embeddings", final_norm="norm_f", mixer_norm="norm")
    wide_residual = True


class StateSpacePlugin(MixerPlugin):
    """A decoder of state-space mixers whose checkpoints are those of `published_config`.

    Two of its layers stand for one of a transformer, which has a feed-forward layer besides.
    """

    layer_class = StateSpaceLayer
    published_config: ClassVar[type[PreTrainedConfig]]

    def publishes(self, config: Any) -> bool:
        """Transformers' classes have a short convolution, root-mean-square norms and no feed-forward layers."""
        return config.short_convolution > 0 and config.feed_forward == "none" and config.norm == "rms"

    def native_fields(self, config: Any) -> dict[str, Any]:
        """The settings by transformers' names."""
        return {field: getattr(config, name) for field, name in _NAMES.items()} | {
            # transformers raises smaller initial steps to 1e-4 unless told otherwise.
            "time_step_floor": min(1e-4, config.time_step_min),
            # Its defaults name the first tokens, which are ordinary bytes here.
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
        }

    def settings_from(self, native: PreTrainedConfig) -> Any:
        """The settings of a checkpoint in either format. Raises RequestError for what is not computed here."""
        if not isinstance(native, self.published_config):
            return super().settings_from(native)
        for field, value in _COMPUTED.items():
            if getattr(native, field) != value:
                raise RequestError(f"{field} {getattr(native, field)!r} is not supported, only {value!r}")
        shared = {name: getattr(native, field) for field, name in _NAMES.items()}
        return self.config_class(**shared, **self.own_settings(native))

    def own_settings(self, native: Any) -> dict[str, Any]:
        """The settings of the mixer that `_NAMES` does not have, of a config of transformers."""
        raise NotImplementedError
