"""The task plugin of lm-eval. Imports lm_eval only where it is needed."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from seqbench.contracts import Batch, Evaluation, Predictor, PublishedScore, TaskPlugin
from seqbench.errors import RequestError
from seqbench_tasks.lm_eval_suites.config import LmEvalConfig
from seqbench_tasks.lm_eval_suites.presets import PRESETS, published_scores
from seqbench_tasks.lm_eval_suites.text_ids import text_ids
from seqbench_tasks.text.scoring import CHUNK_LENGTH, call_tokens
from seqbench_tasks.text.windows import BYTE_VOCABULARY

if TYPE_CHECKING:
    from seqbench_tasks.lm_eval_suites.suites import Suite


class LmEvalTask(TaskPlugin[LmEvalConfig]):
    r"""Suites of EleutherAI's lm-evaluation-harness on a trained model: its definitions, its evaluator, its metrics.

    Nothing is trained. What a document of a suite asks, with "^" under what the model has to say:

        multiple choice  Question: Which is a metal?\nAnswer: iron   the probability of each choice in turn;
                                                              ^^^^   the likeliest is compared with the key
        log-likelihood   The cat sat on the mat                      the probability of the last word,
                                            ^^^                      and whether it is the greedy choice
        rolling          The cat sat on the mat                      bits per byte of the whole text
                         ^^^^^^^^^^^^^^^^^^^^^^
        generate-until   Q: 2 + 3 =?\nA: 5\n                         what the model writes up to a stop
                                         ^^^                         sequence, compared with the answer

    A model without a tokenizer of its own reads UTF-8 bytes behind the id 254, one with a tokenizer its tokens.
    `score` is the main metric of each suite turned so that higher is better: acc_norm, acc, exact_match, f1 or negated
    bits per byte, whichever it reports first; all that lm-eval reports, with standard errors, is stored beside it. A
    suite has one set of documents, which both splits measure.
    """

    name = "lm-eval"
    summary = "suites of lm-evaluation-harness on a trained model, by lm-eval's own evaluator"
    version = "1"
    config_class = LmEvalConfig
    presets = PRESETS
    primary_metric = "score"
    higher_is_better = True
    primary_coordinate = "suite"
    trains = False
    options = {  # noqa: RUF012 (the contract's own type)
        "suite": "suite",
        "few-shot": "few_shot",
        "limit": "limit",
        "include-path": "include_path",
    }
    location_fields = frozenset({"include_path"})

    def __init__(self, config: LmEvalConfig) -> None:
        super().__init__(config)
        self._suites: list[Suite] = []
        self._identity: dict[str, Any] = {}

    def with_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> "LmEvalTask":
        """The same suites in the tokens of that tokenizer."""
        self.tokenizer = tokenizer
        return self

    def prepare(self) -> None:
        """Load the definitions and data of all suites.

        Raises RequestError for a suite that is unknown, whose data is not there, or that cannot be measured here.
        """
        try:
            import lm_eval

            from seqbench_tasks.lm_eval_suites.suites import identity, load_suites
        except ModuleNotFoundError as error:
            raise RequestError(
                f"task lm-eval needs the package {error.name}, which is not installed; type"
                " pip install lm-eval datasets"
            ) from error
        self._suites = load_suites(self.config)
        self._identity = {"lm_eval": lm_eval.__version__, "suites": identity(self._suites, self.config)}

    def data_identity(self) -> Mapping[str, Any]:
        """lm-eval's version, and hashes of the definition and documents of each suite."""
        return self._identity

    def published(self) -> Sequence[PublishedScore]:
        """Zero-shot scores of two models of about 150M parameters, for the suites of preset zero-shot."""
        return tuple(published_scores(self.config))

    @property
    def vocab_size(self) -> int:
        """256 byte values, or the ids of the model's tokenizer."""
        return BYTE_VOCABULARY if self.tokenizer is None else len(self.tokenizer)

    @property
    def longest_sequence(self) -> int:
        """Tokens of a long document's part that is read in one step; nothing is trained."""
        return min(CHUNK_LENGTH, self.config.max_length or CHUNK_LENGTH)

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens of the largest call; the whole input of a model without carried state may be more."""
        return call_tokens(self.vocab_size)

    def training_batch(self, seed: int, index: int, batch_size: int) -> Batch:
        """Raises RequestError: there is nothing to train on."""
        raise RequestError("task lm-eval measures trained models and has no training data; train on another task")

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """Score, all metrics and their standard errors of every suite, and one item for each document.

        Raises ValueError when split is neither "validation" nor "test".
        """
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', not {split!r}")
        from seqbench_tasks.lm_eval_suites.evaluation import evaluate_suites

        text = text_ids(self.tokenizer)
        return evaluate_suites(self._suites, self.config, text, self.vocab_size, predictor, split)

    def rehearsal(self) -> "LmEvalTask":
        """The same suites with their first document alone."""
        task = copy.copy(self)
        task.config = dataclasses.replace(self.config, limit=1)
        return task

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """Score of a document, and its share in the score over all suites."""
        return item["score"], item["weight"]

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """What the figures rest on."""
        del attention_reach
        if not self._suites:
            return []
        from seqbench_tasks.lm_eval_suites.suites import few_shot

        shots = {name: few_shot(task) for suite in self._suites for name, task in suite.tasks.items()}
        counts = ", ".join(f"{count} for {_names(shots, count)}" for count in sorted(set(shots.values())))
        notes = [
            "Score: a suite's main metric (acc_norm, acc, exact_match, f1 or negated bits per byte); higher is better.",
            f"lm-eval {self._identity['lm_eval']}; solved examples before each question: {counts}.",
        ]
        if self.config.limit is not None:
            notes.append(f"Only the first {self.config.limit:,} documents of each suite: not comparable with others.")
        return notes


def _names(shots: Mapping[str, int], count: int) -> str:
    """The suites with that many examples; of many, how many."""
    names = [name for name, shot in shots.items() if shot == count]
    return ", ".join(names) if len(names) <= 6 else f"{len(names)} tasks"
