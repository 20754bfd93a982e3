"""A plugin module that cannot be imported."""

raise OSError("the shared library libtoy.so is not installed")
