"""The causal convolution of each channel with a filter of its own, by its definition and by FFT.

Both are differentiable in all arguments, compute in at least fp32 whatever dtype comes in, and agree to rounding. The
FFT's rounding errors are relative to the largest output of a channel: they reach earlier positions too, as numbers of
the size of rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Up to this many new tokens the definition is as fast as the FFT over the history: on a CPU with a filter of 512 taps,
# forward only, the two cross between 4 and 8 tokens.
SHORT = 4


def causal_convolution_reference(inputs: Tensor, history: Tensor, taps: Tensor) -> Tensor:
    """The definition: output t is the sum over k of taps[:, k] x input t - k.

    Args:
        inputs: (batch, length, channels), the new tokens.
        history: (batch, kept, channels), the inputs just before them, newest last; before those all inputs are zero.
        taps: (channels, filter_length), the weight of the newest input first.

    Returns:
        (batch, length, channels), in fp32, or fp64 where an argument is.
    """
    taps, extended = _prepare(inputs, history, taps)
    kept, length = history.shape[1], inputs.shape[1]
    seen = min(taps.shape[1], kept + length)
    padded = F.pad(extended, (0, 0, max(0, seen - 1 - kept), 0))
    newest = padded.shape[1] - length
    output = torch.zeros_like(extended[:, kept:])
    for distance in range(seen):
        output = output + padded[:, newest - distance : newest - distance + length] * taps[:, distance]
    return output


def causal_convolution(inputs: Tensor, history: Tensor, taps: Tensor) -> Tensor:
    """As `causal_convolution_reference`, in time n log n where that is less: n = kept + length."""
    if inputs.shape[1] <= SHORT:
        return _by_windows(inputs, history, taps)
    return _by_fft(inputs, history, taps)


def _by_fft(inputs: Tensor, history: Tensor, taps: Tensor) -> Tensor:
    taps, extended = _prepare(inputs, history, taps)
    kept, length = history.shape[1], inputs.shape[1]
    taps = taps[:, : kept + length]
    # A circular convolution wraps around into its first taps - 1 outputs: these are to lie in the history, or padding.
    size = _power_of_two(length + max(kept, taps.shape[1] - 1))
    spectrum = torch.fft.rfft(extended.transpose(1, 2), n=size) * torch.fft.rfft(taps, n=size)
    return torch.fft.irfft(spectrum, n=size)[..., kept : kept + length].transpose(1, 2)


def _by_windows(inputs: Tensor, history: Tensor, taps: Tensor) -> Tensor:
    """Each of a few new tokens by its own window of inputs."""
    taps, extended = _prepare(inputs, history, taps)
    outputs = []
    for end in range(history.shape[1] + 1, extended.shape[1] + 1):
        seen = min(taps.shape[1], end)
        outputs.append((extended[:, end - seen : end] * taps[:, :seen].flip(1).t()).sum(dim=1))
    return torch.stack(outputs, dim=1)


def _prepare(inputs: Tensor, history: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """The taps, and history and inputs in one, in one dtype of at least fp32."""
    dtype = torch.promote_types(torch.promote_types(inputs.dtype, taps.dtype), torch.float32)
    return taps.to(dtype), torch.cat((history.to(dtype), inputs.to(dtype)), dim=1)


def _power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    power = 1
    # Comparisons alone: torch.compile then makes one graph for each power instead of one for each length.
    while power < size:
        power *= 2
    return power
