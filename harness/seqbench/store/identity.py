"""The hash over everything that decides a run's numbers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def hash_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity in canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
