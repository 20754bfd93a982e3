"""The plan of a stored run, made again from its run.json."""

from typing import Any

import seqbench
from seqbench.contracts import ModelPlugin, TaskPlugin, describe_settings
from seqbench.errors import RequestError
from seqbench.planning.plan import RunPlan, choose_device
from seqbench.planning.task_data import make_task
from seqbench.plugins.registry import find_model, find_task, lies_in_working_folder
from seqbench.store.run_folder import RunFolder
from seqbench.surroundings.variables import refuse_variables
from seqbench.training.budget import TrainingBudget
from seqbench.training.settings import TrainerSettings


def stored_plan(folder: RunFolder, needs_data: bool = True, trust_plugins: bool = False) -> RunPlan:
    """The plan of the run in `folder`, for the plugins that are installed now.

    Initial weights and the search for a size are left out: a finished run has its own. Without `needs_data` the data
    of the task is not looked for, for whoever wants the model alone. Unless `trust_plugins`, no plugin is imported from
    a file of the working folder because a run names it: folders of runs are passed around. Raises RequestError when
    there is no run, its run.json was changed, or the code that made it had another version.
    """
    refuse_variables()
    run = folder.read_run()
    if run is None:
        raise RequestError(f"{folder.path} holds no run")
    identity = run["identity"]
    for name in (identity["model"]["name"], identity["task"]["name"]):
        if not trust_plugins and lies_in_working_folder(name):
            raise RequestError(
                f"{folder.path} names the plugin {name!r}, which is a file of the working folder and no installed"
                " package; if you know that code, add --trust-plugins (trust_plugins=True) to run it"
            )
    model, task_class = find_model(identity["model"]["name"]), find_task(identity["task"]["name"])
    _require_version(folder, "the harness", identity["core"], seqbench.__version__)
    _require_version(folder, f"model {identity['model']['name']}", identity["model"]["version"], model.version)
    _require_version(folder, f"task {identity['task']['name']}", identity["task"]["version"], task_class.version)
    plan = RunPlan(
        model_name=identity["model"]["name"],
        task_name=identity["task"]["name"],
        model=model,
        model_config=_restore(model.config_class, identity["model"]["config"]),
        tested_config=_restore(model.config_class, identity["model"]["tested_config"]),
        task=_task(run, task_class, model, needs_data),
        trainer=_restore(TrainerSettings, identity["trainer"]),
        ablation=identity["model"]["ablation"],
        seed=identity["seed"],
        device=choose_device(identity["device"]),
        precision=identity["precision"],
        initial_weights=None,
        budget=TrainingBudget(**identity["budget"]),
        parameter_budget=None,
        match=None,
        split=identity["split"],
        kernels=identity.get("speed", {}).get("kernels", ""),
        threads=identity.get("speed", {}).get("threads"),
        compiled=identity.get("compiled", False),
    )
    _require_same_model(folder, identity["model"], plan)
    return plan


def _task(
    run: dict[str, Any], task_class: type[TaskPlugin[Any]], model: ModelPlugin[Any], needs_data: bool
) -> TaskPlugin[Any]:
    """The run's task. Raises RequestError unless the data, where it is needed, is where it was and as it was."""
    stored = run["identity"]["task"]
    config = _restore(task_class.config_class, {**stored["config"], **run.get("locations", {})})
    if not needs_data:
        return task_class(config)
    task = make_task(task_class, config, model.tokenizer())
    if dict(task.data_identity()) != stored.get("data", {}):
        places = ", ".join(f"{name}={value}" for name, value in run.get("locations", {}).items())
        raise RequestError(f"the data of task {stored['name']} ({places}) is not what the run was made with")
    return task


def _require_same_model(folder: RunFolder, stored: dict[str, Any], plan: RunPlan) -> None:
    """Raise RequestError when files or a library give the model another config or tokenizer than it had then."""
    checkpoint = plan.model.checkpoint_sha256()
    if checkpoint not in (None, stored["initial_weights"]):
        raise RequestError(
            f"{folder.path} was made with other files than those of {stored['name']} now; put those back that it was"
            " made with"
        )
    now, then = plan.model.resolved_config(plan.model_config), stored.get("resolved_config", {})
    field = next((name for name in sorted({*now, *then}) if now.get(name) != then.get(name)), None)
    if field is not None:
        raise RequestError(
            f"{folder.path} was made with {field} {then.get(field)!r} in the config of {stored['name']}, and the"
            f" libraries here make it {now.get(field)!r}; environment.json there says which it was made with"
        )


def _require_version(folder: RunFolder, owner: str, stored: str, present: str) -> None:
    if stored != present:
        raise RequestError(
            f"{folder.path} was made with version {stored} of {owner}, and {present} is installed; install that version"
        )


def _restore(config_class: type, values: dict[str, Any]) -> Any:
    """A config from JSON, which has lists for tuples."""
    unknown = values.keys() - describe_settings(config_class).keys()
    if unknown:
        raise RequestError(f"{config_class.__name__} has no field {sorted(unknown)[0]!r}")
    return config_class(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
