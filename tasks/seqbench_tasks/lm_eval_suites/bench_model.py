"""`--model bench` of lm-eval's own command: a trained run, or a checkpoint of any of our models. Imports lm_eval."""

from pathlib import Path
from typing import Any

import torch

from seqbench.errors import RequestError
from seqbench.running.trained import TrainedModel, load_checkpoint, load_run
from seqbench_tasks.lm_eval_suites.language_model import PredictorLM
from seqbench_tasks.lm_eval_suites.text_ids import text_ids
from seqbench_tasks.text.windows import BYTE_VOCABULARY

_PRECISIONS = ("fp32", "bf16")


class BenchLM(PredictorLM):
    """The arguments of `--model_args`, and those of lm-eval's command that concern a model.

    Args:
        run: folder of a finished run; its device and precision are used.
        pretrained: instead of `run`, a checkpoint: a folder, or a model on the Hugging Face hub.
        model: with `pretrained`, the plugin that it belongs to, such as pmnet; none for a model of transformers.
        precision: with `pretrained`, fp32 or bf16.
        max_length: tokens that the model reads at most; none lets the model decide.
        batch_size: sequences of one call, at most; "auto" stands for 16.
        max_batch_size: the same bound, where `batch_size` is larger or "auto".
        trust_plugins: with `run`, whether plugins that it names are imported from files of the working folder.
        device: with `pretrained`; a device that is not there, as lm-eval's default cuda:0 may be, stands for the CPU.

    Raises RequestError for arguments that contradict each other, a model that is not there, and one without the ids of
    text.
    """

    def __init__(
        self,
        run: str | None = None,
        pretrained: str | None = None,
        model: str | None = None,
        precision: str = "fp32",
        max_length: int | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        trust_plugins: bool = False,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise RequestError(
                f"--model bench takes run, or pretrained with model and precision, and max_length in --model_args, not"
                f" {', '.join(unknown)}"
            )
        if (run is None) == (pretrained is None):
            raise RequestError("--model bench needs --model_args run=<folder> or pretrained=<folder or hub id>")
        if run is not None and (model is not None or precision != "fp32"):
            raise RequestError("a run knows its model and precision; leave them out of --model_args")
        trained = _load(run, pretrained, model, precision, device, bool(trust_plugins))
        vocab_size = BYTE_VOCABULARY if trained.tokenizer is None else len(trained.tokenizer)
        known = trained.model.config.vocab_size
        if known < vocab_size:
            raise RequestError(
                f"the model knows {known:,} token ids and text has {vocab_size:,}; name one that reads text"
            )
        self._sha256 = trained.sha256
        super().__init__(
            trained.predictor, text_ids(trained.tokenizer), known, _rows(batch_size, max_batch_size), max_length
        )

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval's results say of the model besides its arguments: a place may hold another one tomorrow."""
        return {"model_sha": self._sha256}


def _load(
    run: str | None,
    pretrained: str | None,
    model: str | None,
    precision: str,
    device: str | None,
    trust_plugins: bool,
) -> TrainedModel:
    if run is not None:
        return load_run(Path(str(run)), trust_plugins)
    if precision not in _PRECISIONS:
        raise RequestError(f"precision is {' or '.join(_PRECISIONS)}, not {precision!r}")
    # Models of transformers are named by their checkpoint.
    wanted = f"hf:{pretrained}" if model in (None, "hf") else str(model)
    available = torch.device(device or "cpu")
    if available.type == "cuda" and not torch.cuda.is_available():
        available = torch.device("cpu")
    return load_checkpoint(str(pretrained), wanted, available, precision)


def _rows(batch_size: int | str, largest: int | None) -> int:
    rows = 16 if str(batch_size).startswith("auto") else int(batch_size)
    return rows if largest is None else min(rows, int(largest))
