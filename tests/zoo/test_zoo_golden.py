"""Mixers give the numbers of the published code: outputs, states, continuations and every gradient."""

from dataclasses import replace
from pathlib import Path

import pytest
from golden_files import TOLERANCE, Golden, System, errors, files_of, read
from systems import SYSTEMS

FILES = [pytest.param(system, path, id=path.stem) for system in SYSTEMS for path in files_of(system.name)]


@pytest.mark.parametrize(("system", "path"), FILES)
def test_all_numbers_are_those_of_the_file(system: System, path: Path) -> None:
    found = errors(system, read(path))
    assert all(error <= TOLERANCE for error in found.values()), found


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_every_system_has_a_file(system: System) -> None:
    assert files_of(system.name)


# What follows holds the comparison itself to what it is for, on one file.
SYSTEM = SYSTEMS[0]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read(files_of(SYSTEM.name)[0])


SEEN_IN = {
    "out.y": "output",
    "w": "gradients",
    "grad.in.x": "gradients",
    "grad.param.o_norm.weight": "gradients",
    "state.S": "state",
    "out2.y": "continuation",
    "in2.x": "continuation",
    "state2.conv_q": "continued state",
    "param.b_proj.weight": "output",
}


@pytest.mark.parametrize("name", SEEN_IN)
def test_a_single_wrong_entry_of_a_tensor_is_seen(golden: Golden, name: str) -> None:
    wrong = golden.tensors[name].clone()
    wrong.flatten()[-1] += 0.01 + 1e-3 * wrong.abs().max()
    found = errors(SYSTEM, replace(golden, tensors={**golden.tensors, name: wrong}))
    assert found[SEEN_IN[name]] > TOLERANCE


def test_a_state_that_is_no_number_is_seen(golden: Golden) -> None:
    broken = {**golden.tensors, "state.S": golden.tensors["state.S"] * float("nan")}
    assert errors(SYSTEM, replace(golden, tensors=broken))["state"] == float("inf")


def test_a_parameter_of_another_name_is_refused(golden: Golden) -> None:
    renamed = {name.replace("o_norm", "norm_o"): tensor for name, tensor in golden.tensors.items()}
    with pytest.raises(RuntimeError, match="norm_o"):
        errors(SYSTEM, replace(golden, tensors=renamed))


def test_files_of_another_shape_are_found_in_a_folder_of_ones_own(tmp_path, monkeypatch) -> None:
    for name in ("delta_net.t130", "delta_net_b", "delta_net_wide.t37", "gated_deltanet.t130"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setenv("SEQBENCH_GOLDEN", str(tmp_path))
    found = [path.name for path in files_of("delta_net")]
    assert found == ["delta_net.t37.safetensors", "delta_net.t130.safetensors", "delta_net_b.safetensors"]
