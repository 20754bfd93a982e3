"""Baseline architectures under the same contract as any plugin."""
