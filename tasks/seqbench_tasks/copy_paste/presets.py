"""Presets of copy-paste: settings of the task and the trainer settings that go with them."""

from typing import Any

from seqbench.contracts import TaskPreset
from seqbench_tasks.copy_paste.config import CopyPasteConfig
from seqbench_tasks.synthetic import TINY_TRAINER

# Published for the 30M model of arXiv 2605.13370: AdamW, rate, decay, warm-up, cosine, clip, batch size. The number of
# steps, the end of the cosine and the evaluation interval are ours.
_PAPER_TRAINER: dict[str, Any] = {
    "steps": 10_000,
    "batch_size": 256,
    "optimizer": "adamw",
    "learning_rate": 5e-4,
    "schedule": "cosine",
    "warmup_steps": 100,
    "final_learning_rate_fraction": 0.1,
    "weight_decay": 0.1,
    "gradient_clip_norm": 1.0,
    "evaluation_interval": 1000,
}

PRESETS: dict[str, TaskPreset[CopyPasteConfig]] = {
    "tiny": TaskPreset(
        config=CopyPasteConfig(
            alphabet_size=32,
            minimum_length=2,
            maximum_length=18,
            # Four layers with windows of 4 bridge 12 tokens; the last is longer than any in training.
            test_lengths=(4, 6, 8, 10, 12, 13, 14, 16, 18, 20),
        ),
        summary="payloads of 2 to 18 symbols out of 32; minutes on a laptop",
        trainer=TINY_TRAINER,
    ),
    "tiny-filler": TaskPreset(
        config=CopyPasteConfig(
            alphabet_size=32,
            minimum_length=2,
            maximum_length=8,
            filler_length=16,
            test_lengths=(2, 4, 6, 8),
        ),
        summary="payloads of 2 to 8 symbols out of 32 behind 16 filler symbols: a long look-back with little to store",
        trainer=TINY_TRAINER,
    ),
    "paper": TaskPreset(
        config=CopyPasteConfig(
            alphabet_size=256,
            minimum_length=10,
            maximum_length=1024,
            # Twelve layers with windows of 128 bridge 1524 tokens: points on both sides of it, and twice the training
            # length at the end.
            test_lengths=(
                *(64, 128, 256, 384, 512, 640, 768, 896, 1024),
                *(1152, 1280, 1408, 1500, 1524, 1536, 1600, 1792, 2048),
            ),
            test_strings_per_length=32,
            validation_strings_per_length=16,
        ),
        summary="as published for 30M parameters: payloads of 10 to 1024 bytes, tested to 2048; needs a GPU",
        trainer=_PAPER_TRAINER,
        figure="PMNet (arXiv 2605.13370), copy-paste",
    ),
}
