"""Skeletons of plugin packages: what `bench new` writes.

The templates are real packages called my-model and my-task, in the folders model/ and task/: they run, and are checked
like any other code. Writing one replaces that name, the module's and the classes'. docs/add-a-model.md and
docs/add-a-task.md explain them line by line.
"""

from seqbench.scaffold.names import KINDS, PluginNames, choose_names
from seqbench.scaffold.package import render, write_package

__all__ = ["KINDS", "PluginNames", "choose_names", "render", "write_package"]
