"""README.md of a trained model's folder, so that it can be loaded, understood and uploaded as it is."""

import sys
from typing import Any

from transformers import PreTrainedModel

import seqbench
from seqbench.report.contamination import contamination_notes
from seqbench.report.results import Result, label_of
from seqbench.report.soundness import soundness_notes

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- seqbench
---

# {label} trained on {task}

Trained and tested by seqbench {version}: run {hash}, seed {seed}, {precision} on {device}, {tokens:,} tokens.
{parameters:,} parameters ({non_embedding:,} outside the vocabulary matrices). Token ids are those of the task.
{soundness}
## Test set

{measurements}
{contamination}
## Load

```python
{loading}
```
"""


def model_card(result: Result, model: PreTrainedModel) -> str:
    """Markdown with what the model is, its measurements and how to load it; the front matter is the hub's."""
    return _CARD.format(
        label=label_of(result),
        task=result["task"]["name"],
        version=seqbench.__version__,
        hash=result["hash"][:8],
        seed=result["seed"],
        precision=result["precision"],
        device=result["device"],
        tokens=result["tokens"],
        parameters=result["parameters_total"],
        non_embedding=result["parameters_non_embedding"],
        measurements=_measurements(result),
        contamination="".join(f"\n{line.text}.\n" for line in contamination_notes([result])),
        soundness="".join(f"\n**{line.text}**\n" for line in soundness_notes([result])),
        loading=_loading(model),
    )


def _measurements(result: Result) -> str:
    rows = ["| metric | where | value | items |", "|---|---|---|---|"]
    for measurement in result["measurements"]:
        where = ", ".join(f"{name} {value}" for name, value in measurement["coordinates"].items()) or "all"
        rows.append(f"| {measurement['metric']} | {where} | {_value(measurement)} | {measurement['n']:,} |")
    return "\n".join(rows)


def _value(measurement: dict[str, Any]) -> str:
    value = measurement["value"]
    return "not finite" if value is None else f"{value:.4g} {measurement['unit']}"


def _loading(model: PreTrainedModel) -> str:
    """Python that loads the folder: by the model's own class or, where that is made at run time, as transformers
    finds it.
    """
    kind = type(model)
    importable = getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind
    name, module = (kind.__name__, kind.__module__) if importable else ("AutoModelForCausalLM", "transformers")
    return f'from {module} import {name}\n\nmodel = {name}.from_pretrained("this folder")'
