"""The contracts of models and tasks as checks, for a plugin author's own pytest and for `bench check`.

from seqbench.testing import check_model_plugin

def test_my_model_keeps_the_contract():
    check_model_plugin("my_package.my_module:MyModel")
"""

from seqbench.testing.check import (
    check_model_plugin,
    check_task_plugin,
    examine_model_plugin,
    examine_task_plugin,
)
from seqbench.testing.report import ClauseFailure, ContractBroken, Outcome, Report

__all__ = [
    "ClauseFailure",
    "ContractBroken",
    "Outcome",
    "Report",
    "check_model_plugin",
    "check_task_plugin",
    "examine_model_plugin",
    "examine_task_plugin",
]
