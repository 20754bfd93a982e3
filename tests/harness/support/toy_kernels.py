"""A toy kernel with paths to choose from, announced by whoever writes its entry point, and a toy model that runs it.

Both paths give the same but for the last digits, as paths do.
"""

from toy_model import Neighbour, NeighbourModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from seqbench.plugins.kernels import find_kernel
from seqbench_kernels.dispatch import Operation, Path

ENTRY_POINTS = """
[bench.kernels]
toy_double = toy_kernels:OPERATION
toy_gone = toy_kernels:NOTHING
"""


def double(tensor):
    return 2 * tensor if OPERATION.choose(tensor.device, tensor.dtype) == "fast" else tensor * 2.000001


def only_cuda(device, dtype):
    return None if device.type == "cuda" else "it computes on a GPU alone"


OPERATION = Operation("toy_double", double, (Path("gpu", only_cuda), Path("fast"), Path("reference")))


class DoublingModel(NeighbourModel):
    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        doubled = find_kernel("toy_double")(output.logits)
        return CausalLMOutputWithPast(logits=doubled, past_key_values=output.past_key_values)


class Doubling(Neighbour):
    """A toy model that doubles its logits with the toy kernel."""

    def build(self, config):
        return DoublingModel(super().build(config).config)

    def confounds(self, config):
        return {**super().confounds(config), "kernel path": "as the plugin thinks"}
