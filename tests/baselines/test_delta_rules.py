"""The mixers of the delta rule, held against a second reading of their formulas, and what golden files cannot see."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_support import normal
from torch import Tensor, nn

from seqbench.errors import RequestError
from seqbench.mixers import Chunk, MixerPlugin
from seqbench_baselines.delta_rule.delta_net import DeltaNetPlugin
from seqbench_baselines.delta_rule.gated_deltanet import GatedDeltaNetPlugin
from seqbench_baselines.delta_rule.kda import KimiDeltaAttentionPlugin
from seqbench_baselines.delta_rule.lengths import of_length, of_length_reference
from seqbench_baselines.delta_rule.memories import initial_decays
from seqbench_baselines.delta_rule.mom import MixtureOfMemoriesPlugin

PLUGINS = [DeltaNetPlugin, GatedDeltaNetPlugin, KimiDeltaAttentionPlugin, MixtureOfMemoriesPlugin]
SIZE = 12
every_plugin = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)


def mixer_of(plugin: type[MixerPlugin], **settings: Any) -> Any:
    """A mixer in fp64 whose parameters are all drawn, large enough for every gate to matter."""
    sizes = {"num_heads": 2, "head_dim": 4, "value_head_dim": 3}
    config = plugin.config_class(hidden_size=SIZE, **{**sizes, **settings})
    mixer = plugin.mixer(SIZE, config).double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(mixer.parameters()):
            parameter.copy_(0.6 * normal(*parameter.shape, seed=seed, dtype=torch.float64))
    return mixer


def chunk_of(hidden: Tensor, seen: int = 0, lengths: Tensor | None = None) -> Chunk:
    ids = torch.zeros(hidden.shape[:2], dtype=torch.int64)
    return Chunk(ids, torch.full((hidden.shape[0],), seen), lengths)


def run(mixer: nn.Module, hidden: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
    output, state, *_ = mixer(hidden, state, chunk_of(hidden, lengths=lengths))
    return output, state


def close(actual: Tensor, expected: Tensor) -> None:
    """Up to the rounding of fp32, in which memories and gates are."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, check_dtype=False)


def convolved(values: Tensor, layer: nn.Conv1d) -> Tensor:
    """(length, channels): SiLU of a causal convolution per channel, by torch's own."""
    taps = layer.weight.shape[-1]
    return F.silu(F.conv1d(F.pad(values.t(), (taps - 1, 0)), layer.weight, groups=values.shape[1]).t())


def token_by_token(mixer: Any, hidden: Tensor) -> Tensor:
    """Outputs (length, size) for one sequence (length, size): projections, convolutions, then each head's memory."""
    settings, outputs = mixer.settings, []
    q, k, v = (layer(hidden) for layer in (mixer.q_proj, mixer.k_proj, mixer.v_proj))
    if settings.short_convolution:
        q, k, v = convolved(q, mixer.q_conv1d), convolved(k, mixer.k_conv1d), convolved(v, mixer.v_conv1d)
    else:
        q, k, v = F.silu(q), F.silu(k), F.silu(v)
    heads = settings.num_heads * settings.value_heads_per_key
    for head in range(heads):
        shared = head // settings.value_heads_per_key
        keys = slice(shared * settings.head_dim, (shared + 1) * settings.head_dim)
        values = slice(head * settings.value_head_dim, (head + 1) * settings.value_head_dim)
        own_q = q[:, keys] * (q[:, keys].square().sum(1, keepdim=True) + 1e-6).rsqrt() / math.sqrt(settings.head_dim)
        own_k = k[:, keys] * (k[:, keys].square().sum(1, keepdim=True) + 1e-6).rsqrt()
        strength = mixer.b_proj(hidden)[:, head].sigmoid() * (2 if settings.negative_eigenvalues else 1)
        memory, read = torch.zeros(settings.head_dim, settings.value_head_dim, dtype=torch.float64), []
        for t in range(len(hidden)):
            memory = decay_of(mixer, hidden[t], head).exp().unsqueeze(-1) * memory
            memory = memory + torch.outer(own_k[t], strength[t] * (v[t, values] - own_k[t] @ memory))
            read.append(own_q[t] @ memory)
        o = torch.stack(read)
        norm = (o.square().mean(1, keepdim=True) + settings.norm_epsilon).rsqrt()
        outputs.append(o * norm * mixer.o_norm.weight * gate_of(mixer, hidden)[:, values])
    return mixer.o_proj(torch.cat(outputs, dim=-1))


def decay_of(mixer: Any, token: Tensor, head: int) -> Tensor:
    """The log decay of a head at a token, one number or one per channel of the keys."""
    if hasattr(mixer, "f_proj"):
        size, floor = mixer.settings.head_dim, mixer.settings.log_decay_floor
        raw = (mixer.f_proj(token) + mixer.dt_bias)[head * size : (head + 1) * size]
        rate = mixer.A_log[head].exp()
        return floor * torch.sigmoid(rate * raw) if floor else -rate * F.softplus(raw)
    if hasattr(mixer, "a_proj"):
        return (-mixer.A_log[head].exp() * F.softplus(mixer.a_proj(token)[head] + mixer.dt_bias[head])).unsqueeze(0)
    return torch.zeros(1, dtype=torch.float64)


def gate_of(mixer: Any, hidden: Tensor) -> Tensor:
    if hasattr(mixer, "f_proj"):
        return mixer.g_proj(hidden).sigmoid()
    return F.silu(mixer.g_proj(hidden)) if hasattr(mixer, "g_proj") else hidden.new_ones(len(hidden), mixer.values)


@pytest.mark.parametrize(
    ("plugin", "settings"),
    [
        (DeltaNetPlugin, {}),
        (DeltaNetPlugin, {"output_gate": True, "negative_eigenvalues": True}),
        (DeltaNetPlugin, {"short_convolution": 0}),
        (GatedDeltaNetPlugin, {"negative_eigenvalues": True}),
        (GatedDeltaNetPlugin, {"value_heads_per_key": 2, "norm_epsilon": 0.1}),
        (KimiDeltaAttentionPlugin, {"short_convolution": 2}),
        (KimiDeltaAttentionPlugin, {"value_heads_per_key": 3, "log_decay_floor": -5.0}),
    ],
    ids=lambda value: value.name if isinstance(value, type) else ", ".join(value) or "defaults",
)
def test_a_mixer_is_its_formula_taken_token_by_token(plugin, settings):
    mixer, hidden = mixer_of(plugin, **settings), normal(2, 21, SIZE, seed=9, dtype=torch.float64)
    output, _ = run(mixer, hidden)
    for row in range(2):
        close(output[row], token_by_token(mixer, hidden[row]))


@pytest.mark.parametrize("taps", [0, 1, 4])
@every_plugin
def test_pieces_and_rows_that_end_early_give_what_a_row_alone_gives(plugin, taps):
    mixer, hidden = mixer_of(plugin, short_convolution=taps), normal(3, 19, SIZE, dtype=torch.float64)
    lengths, rest = torch.tensor([11, 0, 4]), torch.tensor([3, 8, 0])
    first, state = run(mixer, hidden[:, :11], lengths=lengths)
    second, state = run(mixer, hidden[:, 11:], state, lengths=rest)
    for row, (before, after) in enumerate(zip(lengths.tolist(), rest.tolist(), strict=True)):
        tokens = torch.cat((hidden[row, :before], hidden[row, 11 : 11 + after])).unsqueeze(0)
        output, alone = run(mixer, tokens)
        found = torch.cat((first[row, :before], second[row, :after])).unsqueeze(0)
        close(found, output)
        for name, part in alone.items():
            if part is not None:
                close(state[name][row : row + 1], part)


def test_the_epsilon_of_a_length_is_inside_the_root():
    values = 1e-3 * normal(5, 3, 4, dtype=torch.float64)
    lengths = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64).unsqueeze(-1)
    by_hand = lengths * values / torch.sqrt((values**2).sum(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(of_length(values, lengths, 1e-6), by_hand)
    torch.testing.assert_close(of_length_reference(values, lengths, 1e-6), by_hand)
    assert torch.autograd.gradcheck(lambda v: of_length(v, lengths, 1e-6), values.requires_grad_(), eps=1e-9)
    assert of_length(torch.zeros(2, 4), torch.ones(1), 1e-6).abs().max() == 0


def test_first_decays_are_drawn_as_published():
    torch.manual_seed(0)
    for slowest in (0.0, 1.0):
        A_log, dt_bias = torch.empty(20_000), torch.empty(20_000)
        initial_decays(A_log, dt_bias, slowest)
        A, step = A_log.exp(), F.softplus(dt_bias)
        assert A.min() >= slowest and A.min() > 0 and A.max() <= 16.001
        assert A.mean().item() == pytest.approx((16 + slowest) / 2, rel=0.02)
        assert step.log().mean().item() == pytest.approx(math.log(0.01), abs=0.05)
        assert 0.00099 < step.min() < 0.0011 and 0.09 < step.max() < 0.101


# Mixture of memories.


def test_a_memory_that_a_token_is_not_given_stays_as_it_is():
    mixer = mixer_of(MixtureOfMemoriesPlugin, num_memories=3, memories_per_token=1)
    hidden = normal(1, 6, SIZE, dtype=torch.float64)
    _, before = run(mixer, hidden)
    token = normal(1, 1, SIZE, seed=5, dtype=torch.float64)
    chosen = mixer.gate(token).argmax().item()
    _, after = run(mixer, token, before)
    changed = [bool((before["memory"][:, m] != after["memory"][:, m]).any()) for m in range(4)]
    # The last one is the shared memory.
    assert changed == [m in (chosen, 3) for m in range(4)]
    assert torch.equal(before["inputs"][:, (chosen + 1) % 3], after["inputs"][:, (chosen + 1) % 3])


def test_with_one_memory_for_all_it_is_gated_deltanet():
    mixer = mixer_of(MixtureOfMemoriesPlugin, num_memories=1, memories_per_token=1, shared_memory=False)
    plain = mixer_of(GatedDeltaNetPlugin)
    own = {name.replace(".0.", "."): tensor for name, tensor in mixer.state_dict().items() if name != "gate.weight"}
    plain.load_state_dict(own)
    hidden = normal(2, 23, SIZE, dtype=torch.float64)
    close(run(mixer, hidden)[0], run(plain, hidden)[0])


def test_a_weight_that_underflows_to_zero_still_writes():
    mixer = mixer_of(MixtureOfMemoriesPlugin, num_memories=2, memories_per_token=2, shared_memory=False)
    hidden = normal(1, 5, SIZE, dtype=torch.float64)
    with torch.no_grad():
        mixer.gate.weight.mul_(1e5)
    assert (mixer.gate(hidden).softmax(-1) == 0).any()
    _, state = run(mixer, hidden)
    with torch.no_grad():
        mixer.gate.weight.zero_()
    _, evenly = run(mixer, hidden)
    for name, part in state.items():
        close(part, evenly[name])


def test_all_memories_can_share_their_projections():
    mixer = mixer_of(MixtureOfMemoriesPlugin, shared_projections=True)
    names = {name.split(".")[0] for name, _ in mixer.named_parameters()}
    assert {"shared_k", "shared_v", "shared_b", "shared_a"} <= names and not {"k_proj", "v_proj"} & names
    apart = mixer_of(MixtureOfMemoriesPlugin)
    own = dict(mixer.state_dict())
    for name in "kvba":
        own |= {f"{name}_proj.{memory}.weight": own[f"shared_{name}.weight"] for memory in range(4)}
    apart.load_state_dict(own)
    hidden = normal(2, 9, SIZE, dtype=torch.float64)
    close(run(mixer, hidden)[0], run(apart, hidden)[0])


def test_the_loss_that_spreads_tokens_is_the_switch_transformers_row_by_row():
    mixer = mixer_of(MixtureOfMemoriesPlugin, num_memories=3, memories_per_token=2, balance_loss=0.5)
    hidden, lengths = normal(2, 7, SIZE, dtype=torch.float64), torch.tensor([7, 4])
    *_, loss = mixer(hidden, None, chunk_of(hidden, lengths=lengths))
    for row, length in enumerate(lengths.tolist()):
        probability = mixer.gate(hidden[row, :length]).softmax(-1)
        chosen = probability.topk(2, dim=-1).indices
        expected = sum(
            (chosen[:, slot] == memory).double().mean() * probability[:, memory].mean()
            for slot in range(2)
            for memory in range(3)
        )
        close(loss[row], 0.5 * 3 * expected)


def test_more_memories_a_token_than_there_are_is_refused():
    with pytest.raises(RequestError, match="memories_per_token=5 is more than num_memories=4"):
        MixtureOfMemoriesPlugin.config_class(memories_per_token=5)
