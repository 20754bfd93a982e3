"""A plugin module that leaves the interpreter."""

raise SystemExit(0)
