"""Speed and memory of models and kernels, measured side by side in one process."""
