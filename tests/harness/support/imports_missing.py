"""A plugin module whose own dependency is missing."""

import no_such_dependency  # noqa: F401
