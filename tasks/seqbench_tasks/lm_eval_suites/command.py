"""`bench-lm-eval`: lm-eval's own command, which knows our models too.

Up to version 0.4.13 lm-eval finds the models of other packages only when their modules were imported. Its guide for
such models is to import them and call its command, which this does. Later versions read the entry point
"lm_eval.models", and `lm_eval --model bench` works by itself.
"""

import sys

from seqbench.errors import RequestError, RunFailure
from seqbench.surroundings.variables import hidden_variables

_TARGET = "seqbench_tasks.lm_eval_suites.bench_model:BenchLM"


def main() -> None:
    """Run lm-eval's command. Exit codes: 2 for a wrong request, 1 for a model that cannot be measured."""
    try:
        # Names its own models first: it does so only while it knows none.
        import lm_eval.models  # noqa: F401
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        _fail(f"the package {error.name} is not installed; type pip install lm-eval datasets", 2)
    if "bench" not in model_registry:
        model_registry.register("bench", target=_TARGET)
    try:
        with hidden_variables():
            cli_evaluate()
    except RequestError as error:
        _fail(str(error), 2)
    except RunFailure as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    print(f"bench-lm-eval: {message}", file=sys.stderr)
    sys.exit(code)
