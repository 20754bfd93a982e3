"""What a plugin implements and what it may rely on: model, task and measurement contracts, documented settings."""

from seqbench.contracts.classification import MEMORY_KINDS, WRITING_RULES, Classification
from seqbench.contracts.measurement import (
    LOOKBACK,
    Contamination,
    Evaluation,
    Measurement,
    PublishedScore,
)
from seqbench.contracts.model import Ablation, Flops, ModelPlugin, WidthAxis
from seqbench.contracts.settings import (
    SettingInfo,
    check_settings,
    describe_settings,
    setting,
    with_settings,
)
from seqbench.contracts.task import IGNORED_LABEL, Batch, PredictedChunk, Predictor, TaskPlugin, TaskPreset

__all__ = [
    "IGNORED_LABEL",
    "LOOKBACK",
    "MEMORY_KINDS",
    "WRITING_RULES",
    "Ablation",
    "Batch",
    "Classification",
    "Contamination",
    "Evaluation",
    "Flops",
    "Measurement",
    "ModelPlugin",
    "PredictedChunk",
    "Predictor",
    "PublishedScore",
    "SettingInfo",
    "TaskPlugin",
    "TaskPreset",
    "WidthAxis",
    "check_settings",
    "describe_settings",
    "setting",
    "with_settings",
]
