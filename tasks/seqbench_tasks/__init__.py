"""Tasks that ship with seqbench: one package per task, each registered under the entry-point group `bench.tasks`."""
