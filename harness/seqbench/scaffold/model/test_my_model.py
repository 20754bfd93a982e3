"""my-model keeps the contract of a seqbench model, clause by clause."""

from my_model import MyModelPlugin

from seqbench.testing import check_model_plugin


def test_my_model_keeps_the_contract() -> None:
    """What `bench check my_model:MyModelPlugin` runs."""
    check_model_plugin(MyModelPlugin)
