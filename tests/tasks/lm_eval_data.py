"""Local data sets in the schemas of registered suites, and models to measure on them."""

import json
from pathlib import Path
from typing import Any

import lm_eval
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from pmnet_plugin.plugin import PMNetPlugin
from seqbench.evaluating.predictor import ModelPredictor
from seqbench.store.records import EvaluationRecords
from seqbench.testing.model.liveliness import lively

LIBRARY = Path(lm_eval.__file__).parent / "tasks"
ANIMALS = ("cat", "horse", "frog", "whale", "bee")
PLACES = ("mat", "field of grass", "café", "sea", "flower")


# A group of the user's own, of two tasks that take everything else from lm-eval's definitions.
DEFINITIONS = {
    "animals": "group: animals\ntask: [animals_arc, animals_piqa]\n"
    "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n",
    "animals_arc": f"include: {LIBRARY}/arc/arc_easy.yaml\ntask: animals_arc\ntag: null\n",
    "animals_piqa": f"include: {LIBRARY}/piqa/piqa.yaml\ntask: animals_piqa\nnum_fewshot: 0\n",
}


def write_data(folder: Path) -> Path:
    """Data sets of all suites below `folder`, as lm-eval's unmodified definitions name them, and a group."""
    folder.mkdir(exist_ok=True)
    for name, definition in DEFINITIONS.items():
        (folder / f"{name}.yaml").write_text(definition)
    sentences = [f"The {animal} sat on the {place}" for animal, place in zip(ANIMALS, PLACES, strict=True)]
    _write(folder, "EleutherAI/lambada_openai", "default", test=[{"text": text} for text in sentences])
    endings = [
        {
            "activity_label": "Sitting",
            "ctx_a": f"A {animal} is seen.",
            "ctx_b": "it sits down",
            "endings": [f"on the {place}." for place in PLACES[:4]],
            "label": str(number % 4),
        }
        for number, animal in enumerate(ANIMALS)
    ]
    _write(folder, "Rowan/hellaswag", "default", validation=endings, train=endings[:2])
    questions = [
        {
            "question": f"Where does the {animal} live?",
            "choices": {"text": list(PLACES[:3]), "label": ["A", "B", "C"]},
            "answerKey": "ABC"[number % 3],
        }
        for number, animal in enumerate(ANIMALS)
    ]
    _write(folder, "allenai/ai2_arc", "ARC-Easy", test=questions, validation=questions[:2], train=questions[:3])
    ways = [
        {"goal": f"Feed a {animal}", "sol1": "Give it food.", "sol2": f"Show it a {place}.", "label": number % 2}
        for number, (animal, place) in enumerate(zip(ANIMALS, PLACES, strict=True))
    ]
    _write(folder, "baber/piqa", "default", validation=ways, train=ways[:2])
    blanks = [
        {
            "sentence": f"The {animal} left the {place} because the _ was cold.",
            "option1": animal,
            "option2": place,
            "answer": str(1 + number % 2),
        }
        for number, (animal, place) in enumerate(zip(ANIMALS, PLACES, strict=True))
    ]
    _write(folder, "allenai/winogrande", "winogrande_xl", validation=blanks, train=blanks[:2])
    pages = [
        {"page": f" = Page {number} = \n\n {' . '.join(sentences[: number + 1])} . \n"}
        for number in range(len(sentences))
    ]
    name = "EleutherAI/wikitext_document_level"
    _write(folder, name, "wikitext-2-raw-v1", test=pages, train=pages[:2], validation=pages[:2])
    trivia = [
        {"question": f"Where does the {animal} live", "answer": {"aliases": [place, place.title()]}}
        for animal, place in zip(ANIMALS, PLACES, strict=True)
    ]
    _write(folder, "mandarjoshi/trivia_qa", "rc.nocontext", validation=trivia, train=trivia[:2])
    return folder


def _write(folder: Path, name: str, config: str, **splits: list[dict[str, Any]]) -> None:
    """A data set as the hub keeps it: a README that names the files of each split, and the files."""
    place = folder / name
    place.mkdir(parents=True)
    lines = [f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits]
    head = f"configs:\n- config_name: {config}\n  data_files:\n{''.join(lines)}"
    (place / "README.md").write_text(f"---\n{head}---\n")
    for split, rows in splits.items():
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def byte_model() -> PreTrainedModel:
    """A tiny PMNet that depends clearly on every byte."""
    plugin = PMNetPlugin()
    torch.manual_seed(3)
    return lively(plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], 256)), 256, 32)


def token_model(vocab_size: int, longest: int = 512) -> PreTrainedModel:
    """A Llama whose config declares the longest sequence."""
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=longest,
        bos_token_id=None,
        eos_token_id=0,
    )
    return lively(LlamaForCausalLM(config), vocab_size, 32)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of some words, which ends texts with <end> and begins them with nothing."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer, bpe.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(
        [" ".join(ANIMALS + PLACES), "The cat sat on the mat. Where does the frog live?"] * 4, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")


def predictor(
    model: PreTrainedModel, reach: int | None = None, records: EvaluationRecords | None = None
) -> ModelPredictor:
    """The model as a task sees it."""
    return ModelPredictor(model, torch.device("cpu"), "fp32", reach, lambda length: 0, records)
