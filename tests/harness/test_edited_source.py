"""A plugin edited under its version: the stored figure is shown with a line that says so."""

import importlib
import sys
from pathlib import Path

import pytest

from seqbench.plugins.plugin_source import source_sha256
from seqbench.running.edited_source import edited_sources

PLUGIN = "from {layers} import WIDTH\n\nclass Plugin:\n    width = WIDTH\n"


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """Hash of `model:Plugin`, written with these texts into a folder of its own."""
    count = iter(range(100))

    def write(package, newline="\n", **texts):
        root = tmp_path / f"place{next(count)}"
        place = root / "written" if package else root
        place.mkdir(parents=True)
        layers = ".layers" if package else "written_layers"
        files = {
            "written_model": PLUGIN.format(layers=layers),
            "layers" if package else "written_layers": "WIDTH = 1\n",
            **({"__init__": ""} if package else {}),
            **texts,
        }
        for name, text in files.items():
            (place / f"{name}.py").write_bytes(text.replace("\n", newline).encode())
        for name in [name for name in sys.modules if name.startswith("written")]:
            del sys.modules[name]
        monkeypatch.syspath_prepend(str(root))
        importlib.invalidate_caches()
        for function in (
            m for m in vars(sys.modules["seqbench.plugins.plugin_source"]).values() if hasattr(m, "cache_clear")
        ):
            function.cache_clear()
        module = importlib.import_module("written.written_model" if package else "written_model")
        return source_sha256(module.Plugin)

    return write


@pytest.mark.parametrize("package", [True, False])
def test_the_hash_follows_the_text_of_what_the_class_is_made_from_and_not_its_place(hashed, package):
    layers = "layers" if package else "written_layers"
    first = hashed(package)
    assert hashed(package) == first
    assert hashed(package, newline="\r\n") == first
    assert hashed(package, **{layers: "WIDTH = 2\n"}) != first
    assert hashed(package, unrelated="WIDTH = 3\n") == first


def test_imports_within_functions_count_and_a_class_without_source_has_no_hash(hashed):
    late = "class Plugin:\n    def build(self):\n        import written_layers\n"
    first = hashed(False, written_model=late)
    assert hashed(False, written_model=late, written_layers="WIDTH = 2\n") != first
    assert source_sha256(type("Typed", (), {"__module__": "nowhere"})) is None


def test_what_differs_is_named_and_what_was_not_recorded_is_not():
    names, now = {"model": "toy", "task": "recall"}, {"model": "b" * 64, "task": "c" * 64}
    stored = {"sources": {"model": "a" * 64, "task": "c" * 64}}
    assert edited_sources(stored, now, names) == ["model toy: source aaaaaaaa, now bbbbbbbb"]
    assert edited_sources({}, now, names) == []


@pytest.mark.slow
def test_a_figure_made_with_other_code_is_shown_with_what_to_type(bench):
    source = (Path(__file__).parent / "support" / "leaking_model.py").read_text()
    module = bench.folder / "edited_model.py"
    module.write_text(source)
    command = ("run", "--model", "edited_model:Honest", "--task", "toy_task:Recall", "--output", "edited")
    paths = {"PYTHONPATH": str(bench.folder)}
    first = bench.fresh(*command, **paths)
    assert (first.code, "other code" in first.err) == (0, False)
    module.write_text(source.replace("F.elu(self.key(seen)) + 1", "F.elu(self.key(seen)) + 2"))
    for shown in (command, ("show", "edited"), ("verify", "edited")):
        told = bench.fresh(*shown, **paths)
        assert "other code under the same version" in told.out + told.err, shown
    assert "bench runs --hash" in bench.fresh(*command, **paths).err
