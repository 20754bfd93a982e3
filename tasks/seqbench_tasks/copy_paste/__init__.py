"""Copy-paste: repeat a random string after a separator, at a chosen look-back."""

from seqbench_tasks.copy_paste.config import CopyPasteConfig
from seqbench_tasks.copy_paste.task import CopyPasteTask

__all__ = ["CopyPasteConfig", "CopyPasteTask"]
