"""A trained model of a run's folder or a checkpoint, ready to be asked, for programs other than `bench`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from seqbench.environment import fixed_surroundings
from seqbench.errors import RequestError
from seqbench.evaluating.predictor import ModelPredictor
from seqbench.planning.initial_weights import find_initial_weights, load_weights
from seqbench.planning.plan import RunPlan
from seqbench.planning.stored_plan import stored_plan
from seqbench.plugins.registry import find_model
from seqbench.running.measuring import load_trained, predictor_of
from seqbench.store.run_folder import RunFolder
from seqbench.surroundings.variables import refuse_variables


@dataclass(frozen=True)
class TrainedModel:
    """What a finished run has left, or a checkpoint holds.

    Attributes:
        model: with the trained weights, on the predictor's device.
        tokenizer: the model's own; None for a model that takes bytes, or the ids of its task.
        plan: of the run; None for a checkpoint.
        predictor: the model as tasks see it.
        sha256: hash of the run, or of everything that is read of the checkpoint.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    plan: RunPlan | None
    predictor: ModelPredictor
    sha256: str


def load_run(path: Path, trust_plugins: bool = False) -> TrainedModel:
    """The trained model of the run in the folder `path`.

    With `trust_plugins`, plugins that the run names are imported from files of the working folder, too.

    Raises RequestError when there is no finished run, it failed, or its weights are damaged.
    """
    folder = RunFolder(path)
    plan = stored_plan(folder, needs_data=False, trust_plugins=trust_plugins)
    result = folder.read_result()
    if result is None or result["status"] != "complete":
        raise RequestError(f"{path} holds no finished run; type its command again, or name another run")
    if plan.trained is not plan:
        raise RequestError(
            f"{path} tested the model of another run without a part ({plan.ablation}); name the run that trained it,"
            f" {result['trained_in']}"
        )
    damage = next(folder.damages(), None)
    if damage is not None:
        raise damage
    model = load_trained(plan, folder)
    run = folder.read_run()
    assert run is not None
    return TrainedModel(model, plan.model.tokenizer(), plan, predictor_of(plan, model), run["hash"])


@fixed_surroundings()
def load_checkpoint(name: str, model: str, device: torch.device, precision: str) -> TrainedModel:
    """The model of a checkpoint.

    Args:
        name: a folder, the folder of a run, or a model on the Hugging Face hub.
        model: the plugin that it is a checkpoint of, as on the command line.
        device: where it computes.
        precision: fp32 or bf16.

    Raises RequestError when there is no such checkpoint, or the plugin cannot be that model.
    """
    refuse_variables()
    plugin = find_model(model)
    sha256 = plugin.checkpoint_sha256()
    if sha256 is None:
        weights = find_initial_weights(name, plugin)
        config = weights.settings
        network, sha256 = load_weights(plugin.build(config), weights.folder), weights.sha256
    else:
        config = plugin.presets[plugin.default_preset]
        network = plugin.build(config)
    predictor = ModelPredictor.of(plugin, config, network, device, precision)
    return TrainedModel(network, plugin.tokenizer(), None, predictor, sha256)
