"""my-task keeps the contract of a seqbench task, clause by clause."""

from my_task import MyTaskPlugin

from seqbench.testing import check_task_plugin


def test_my_task_keeps_the_contract() -> None:
    """What `bench check my_task:MyTaskPlugin` runs."""
    check_task_plugin(MyTaskPlugin)
