"""A toy model whose module changes torch's settings when it is imported, and whose `build` does once more."""

import torch
from toy_model import Neighbour

torch.set_default_dtype(torch.float64)
torch.set_float32_matmul_precision("medium")


class Meddler(Neighbour):
    name = "meddler"

    def equip(self, model):
        torch.set_default_dtype(torch.bfloat16)
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        return model
