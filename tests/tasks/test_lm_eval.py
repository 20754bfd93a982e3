"""The task lm-eval: figures are those of lm-eval itself, and every document is accounted for."""

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import datasets.config
import lm_eval
import lm_eval.evaluator
import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval_data import byte_model, predictor, token_model, tokenizer, write_data

from pmnet_plugin.tokenizer import PMNetTokenizer
from seqbench.contracts import Evaluation, Measurement
from seqbench.errors import RequestError
from seqbench.store.records import EvaluationRecords
from seqbench_tasks.lm_eval_suites import LmEvalConfig, LmEvalTask, evaluation, suites
from seqbench_tasks.lm_eval_suites.definitions import Definitions

# Log-likelihood and multiple choice, rolling log-likelihood, and generate-until, as lm-eval defines them.
WITH_CONTEXT = ("lambada_openai", "arc_easy", "hellaswag", "piqa", "winogrande")
ROLLING = ("wikitext",)
WRITTEN = ("triviaqa",)
LIMIT = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub, a cache of the tests' own, and resampling without processes."""
    monkeypatch.setattr(suites, "_hub_answers", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")


@pytest.fixture(scope="module")
def reader() -> Any:
    """A model that reads bytes."""
    return byte_model()


def prepared(data: Path | None, *names: str, **settings: Any) -> LmEvalTask:
    include = None if data is None else str(data)
    task = LmEvalTask(LmEvalConfig(suite=names, include_path=include, **settings))
    task.prepare()
    return task


def figures(evaluation: Evaluation) -> dict[tuple[Any, str], float]:
    """What lm-eval reports too."""
    return {
        (entry.coordinates["suite"], entry.metric): entry.value
        for entry in evaluation.measurements
        if entry.metric not in ("score", "shortened")
    }


def scores(evaluation: Evaluation) -> dict[Any, Measurement]:
    """By suite; under None the one over all."""
    return {entry.coordinates.get("suite"): entry for entry in evaluation.measurements if entry.metric == "score"}


def measured_by_lm_eval(
    model: HFLM, names: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[tuple[Any, str], float]:
    """What `lm_eval.simple_evaluate` reports of the same definitions and data."""
    # It asks the machine for its drivers and packages, which takes seconds.
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
    monkeypatch.chdir(data)
    definitions = Definitions(None)
    found = {}
    for name in names:
        manager, spec = definitions.find(name)
        results = lm_eval.simple_evaluate(model=model, tasks=[spec], task_manager=manager, limit=LIMIT, **options)
        for key, value in results["results"][name].items():
            metric, comma, chosen = key.partition(",")
            if comma and value != "N/A":
                found[name, metric if chosen == "none" else f"{metric} ({chosen})"] = float(value)
    return found


def directly(model: Any, add_bos_token: bool, max_length: int = 4096) -> HFLM:
    """The byte-level model in lm-eval's own class."""
    text = PMNetTokenizer(256, special_tokens_pattern="bos")
    return HFLM(pretrained=model, tokenizer=text, batch_size=3, add_bos_token=add_bos_token, max_length=max_length)


def test_a_byte_level_model_gets_the_figures_that_lm_eval_gives_it_directly(
    data: Path, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = figures(prepared(data, *WITH_CONTEXT, *ROLLING, limit=LIMIT).evaluate(predictor(reader, reach=12), "test"))
    theirs = measured_by_lm_eval(directly(reader, add_bos_token=True), WITH_CONTEXT, data, monkeypatch)
    # Where a whole text is predicted, HFLM itself puts a bos before it; with add_bos_token it would predict a second.
    theirs |= measured_by_lm_eval(directly(reader, add_bos_token=False), ROLLING, data, monkeypatch)
    assert len(ours) >= 2 * len(WITH_CONTEXT)
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_a_tokenised_model_gets_the_figures_that_lm_eval_gives_it_directly(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tokenizer()
    model = token_model(len(text))
    names = (*WITH_CONTEXT, *ROLLING, *WRITTEN)
    task = prepared(data, *names, limit=LIMIT, few_shot=1).with_tokenizer(text)
    ours = figures(task.evaluate(predictor(model), "test"))
    plain = HFLM(pretrained=model, tokenizer=text, batch_size=3)
    theirs = measured_by_lm_eval(plain, names, data, monkeypatch, num_fewshot=1)
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_inputs_beyond_a_given_length_are_cut_as_lm_eval_cuts_them_and_counted(
    data: Path, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = prepared(data, "arc_easy", "wikitext", max_length=32, limit=LIMIT)
    found = task.evaluate(predictor(reader), "test")
    theirs = measured_by_lm_eval(directly(reader, True, max_length=32), ("arc_easy",), data, monkeypatch)
    theirs |= measured_by_lm_eval(directly(reader, False, max_length=32), ROLLING, data, monkeypatch)
    assert figures(found) == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    shortened = {entry.coordinates["suite"]: entry for entry in found.measurements if entry.metric == "shortened"}
    # Three questions with three answers each; three pages.
    assert {name: (entry.value, entry.n) for name, entry in shortened.items()} == {
        "arc_easy": (9, 9),
        "wikitext": (3, 3),
    }


def test_nothing_is_reported_as_cut_where_everything_was_read(data: Path, reader: Any) -> None:
    found = prepared(data, "wikitext").evaluate(predictor(reader, reach=12), "test")
    assert all(entry.metric != "shortened" for entry in found.measurements)


def test_the_score_is_the_main_metric_turned_so_that_higher_is_better(data: Path, reader: Any) -> None:
    found = prepared(data, "lambada_openai", "arc_easy", "wikitext").evaluate(predictor(reader, reach=12), "test")
    known = figures(found)
    assert scores(found)["arc_easy"].value == known["arc_easy", "acc_norm"]
    assert scores(found)["lambada_openai"].value == known["lambada_openai", "acc"]
    assert scores(found)["wikitext"].value == -known["wikitext", "bits_per_byte"]
    assert scores(found)["wikitext"].unit == "bits per byte, negated"


def test_suites_in_different_units_have_no_score_in_common(data: Path, reader: Any) -> None:
    mixed = prepared(data, "arc_easy", "wikitext").evaluate(predictor(reader, reach=12), "test")
    assert None not in scores(mixed)
    alike = prepared(data, "arc_easy", "winogrande").evaluate(predictor(reader, reach=12), "test")
    whole = scores(alike)
    assert whole[None].value == pytest.approx((whole["arc_easy"].value + whole["winogrande"].value) / 2)
    assert whole[None].n == 10


@pytest.mark.parametrize("names", [("arc_easy", "winogrande"), ("wikitext",), ("animals", "winogrande")])
def test_the_items_are_all_documents_and_make_the_score(data: Path, reader: Any, names: tuple[str, ...]) -> None:
    task = prepared(data, *names)
    found = task.evaluate(predictor(reader, reach=12), "test")
    pairs = [task.item_score(item) for item in found.items]
    weighted = math.fsum(score * weight for score, weight in pairs) / math.fsum(weight for _, weight in pairs)
    assert weighted == pytest.approx(scores(found)[None].value, rel=1e-9)
    assert [item["index"] for item in found.items] == list(range(len(found.items)))
    assert json.loads(json.dumps(found.items)) == list(found.items)
    assert {item["suite"] for item in found.items} == {name for suite in task._suites for name in suite.tasks}


def test_a_group_is_told_with_its_tasks_in_the_aggregation_of_lm_eval(data: Path, reader: Any) -> None:
    found = prepared(data, "animals").evaluate(predictor(reader, reach=12), "test")
    known = figures(found)
    tasks = ("animals_arc", "animals_piqa")
    assert known["animals", "acc"] == pytest.approx(sum(known[name, "acc"] for name in tasks) / 2)
    assert known["animals", "acc_stderr"] > 0
    assert scores(found)["animals"].value == pytest.approx(sum(scores(found)[name].value for name in tasks) / 2)
    assert scores(found)[None].value == scores(found)["animals"].value


def test_an_interrupted_evaluation_goes_on_behind_the_suites_that_it_has(
    data: Path, reader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("arc_easy", "winogrande")
    whole = prepared(data, *names).evaluate(predictor(reader, reach=12), "test")
    asked: list[str] = []
    evaluate = evaluation.evaluate

    def interrupted(**options: Any) -> Any:
        (name,) = options["task_dict"]["tasks"]
        if name == "winogrande" and not asked.count("winogrande"):
            asked.append(name)
            raise KeyboardInterrupt
        asked.append(name)
        return evaluate(**options)

    monkeypatch.setattr(evaluation, "evaluate", interrupted)

    def attempt() -> Evaluation:
        records = EvaluationRecords(tmp_path / "records.jsonl", "this run")
        return prepared(data, *names).evaluate(predictor(reader, reach=12, records=records), "test")

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert attempt() == whole
    assert asked == ["arc_easy", "winogrande", "winogrande"]


def test_evaluating_leaves_the_random_numbers_of_others_alone(data: Path, reader: Any) -> None:
    task = prepared(data, "arc_easy", limit=1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    task.evaluate(predictor(reader, reach=12), "test")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_standard_output_is_left_to_the_result(data: Path, reader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """lm-eval prints while it resamples perplexities."""
    prepared(data, "lambada_openai", limit=2).evaluate(predictor(reader, reach=12), "test")
    assert capsys.readouterr().out == ""


def test_solved_examples_are_shown_unless_the_suite_wants_none(data: Path) -> None:
    task = prepared(data, "arc_easy", "animals_piqa", few_shot=2)
    (note,) = [note for note in task.report_notes(None) if "solved examples" in note]
    assert "0 for animals_piqa, 2 for arc_easy" in note


def test_what_is_measured_is_part_of_the_identity_and_where_it_lies_is_not(data: Path, tmp_path: Path) -> None:
    copy = write_data(tmp_path / "copy")
    first, same = (prepared(folder, "arc_easy", "animals").data_identity() for folder in (data, copy))
    assert first == same
    assert LmEvalTask.location_fields == {"include_path"}
    (copy / "allenai/ai2_arc/test.jsonl").write_text((copy / "allenai/ai2_arc/validation.jsonl").read_text())
    changed = prepared(copy, "arc_easy", "animals").data_identity()["suites"]
    assert changed["arc_easy"]["documents"] != first["suites"]["arc_easy"]["documents"]
    assert changed["animals_piqa"] == first["suites"]["animals_piqa"]
    assert prepared(data, "arc_easy", limit=2).data_identity() != prepared(data, "arc_easy").data_identity()


def test_an_unknown_suite_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(RequestError, match=r"--suite arc_eazy.*did you mean arc_easy"):
        prepared(None, "arc_eazy")


def test_a_suite_without_its_data_names_the_data_set_and_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as refused:
        prepared(tmp_path, "arc_easy")
    assert "--suite arc_easy: its data set is not on this machine" in str(refused.value)
    assert "allenai/ai2_arc" in str(refused.value)
    assert "--include-path FOLDER" in str(refused.value)


def test_a_data_set_without_the_split_that_the_suite_measures_is_refused(data: Path, tmp_path: Path) -> None:
    copy = write_data(tmp_path / "copy")
    readme = copy / "allenai/ai2_arc/README.md"
    readme.write_text(readme.read_text().replace("split: test", "split: exam"))
    with pytest.raises(RequestError, match="--suite arc_easy: its data set lacks 'test'"):
        prepared(copy, "arc_easy")


def test_a_damaged_data_file_is_refused(tmp_path: Path) -> None:
    copy = write_data(tmp_path / "copy")
    (copy / "baber/piqa/validation.jsonl").write_text('{"goal": "Feed a cat", "sol1"')
    with pytest.raises(RequestError, match="--suite piqa cannot be loaded: DatasetGenerationError"):
        prepared(copy, "piqa")


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match="--include-path nowhere: there is no such folder"):
        LmEvalTask(LmEvalConfig(include_path="nowhere")).prepare()


@pytest.mark.parametrize("name", ["x.yaml", "data.jsonl"])
def test_a_folder_that_cannot_be_read_whole_is_refused(tmp_path, name):
    (tmp_path / "owner").mkdir()
    os.mkfifo(tmp_path / "owner" / name)
    with pytest.raises(RequestError, match=f"owner/{name}: it is a FIFO, and no ordinary file\nrepair or remove it$"):
        LmEvalTask(LmEvalConfig(include_path=str(tmp_path))).prepare()


def test_a_suite_that_runs_code_is_refused(tmp_path: Path) -> None:
    copy = write_data(tmp_path / "copy")
    (copy / "code.yaml").write_text("include: animals_piqa.yaml\ntask: code\nunsafe_code: true\n")
    with pytest.raises(RequestError, match="suite code runs code that the model writes"):
        prepared(copy, "code")


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="suite names piqa more than once"):
        LmEvalConfig(suite=("piqa", "arc_easy", "piqa"))


def test_published_scores_are_shown_for_whole_suites_only() -> None:
    whole = LmEvalTask(LmEvalConfig(suite=("piqa", "wikitext"))).published()
    assert [(score.coordinates, score.metric, score.model) for score in whole] == [
        ({"suite": "piqa"}, "acc", "Pythia-160M"),
        ({"suite": "piqa"}, "acc", "Mamba-130M"),
    ]
    assert LmEvalTask(LmEvalConfig(suite=("piqa",), limit=100)).published() == ()


def test_the_default_suite_needs_no_data() -> None:
    task = LmEvalTask(LmEvalTask.presets[LmEvalTask.default_preset].config)
    task.prepare()
    assert task.vocab_size == 256
