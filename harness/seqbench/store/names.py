"""The names of what lies in the folder of a run."""

RUN, ENVIRONMENT, RESULT = "run.json", "environment.json", "result.json"
LOG, ITEMS, EVALUATION, ATTEMPTS = "metrics.jsonl", "items.jsonl", "evaluation.jsonl", "attempts.jsonl"
CHECKPOINTS, MODEL = "checkpoints", "model"
PLOT, TRAINING_PLOT, TRACEBACK = "plot.png", "training.png", "traceback.txt"
# In MODEL: text for people, who may change it.
MODEL_CARD = "README.md"
