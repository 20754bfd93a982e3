"""What pip leaves behind for a package that announces plugins or kernels."""

from pathlib import Path


def announce_package(folder: Path, name: str, entry_points: str) -> None:
    """In `folder`, which has to be on the path; `entry_points` is the content of entry_points.txt."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)
