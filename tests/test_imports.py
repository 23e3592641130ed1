"""Who may import whom: folders are in one order, imports go down it, and what must start quickly stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

import composer
from tests.reference.events import HANGING

PACKAGE = Path(composer.__file__).parent

HEAVY = {"torch", "transformers", "matplotlib", "datasets", "accelerate", "sklearn", "sacrebleu"}

ORDER = (
    *("__init__", "errors", "registry", "progress"),
    *("files", "demo", "parallel", "scheme", "tensors", "models", "library", "tasks", "report"),
    *("shrinking",),
    *(
        "choosing",
        "calibration",
        "evaluation",
        "pruning",
        "training",
        "composing",
        "simplifying",
        "timing",
        "exporting",
    ),
    *("recipe", "run_folder", "run_inputs", "workspace", "plugin", "steps", "assess", "forecast", "cli", "__main__"),
)
"""Everything that lies in ``composer/``, lowest first: each imports only from itself and from what stands before it."""

PLAIN = {
    "errors",
    "registry",
    "progress",
    "files",
    "parallel",
    "scheme",
    "library",
    "recipe",
    "run_folder",
    "plugin",
    "cli",
    "__init__",
}
"""Folders and files of plain data: none of their modules loads anything heavy at its top."""


def sources() -> Iterator[tuple[str, Path]]:
    """Module name (dotted, below ``composer``) and file of everything in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


def imports(name: str, path: Path, *, everywhere: bool) -> Iterator[str]:
    """Absolute names of what a module imports: at its top, or in functions too. Types do not count."""
    parents = ["composer", *name.split(".")]
    for node in _statements(ast.parse(path.read_text("utf-8")), everywhere=everywhere):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _statements(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not everywhere:
            continue
        yield child
        yield from _statements(child, everywhere=everywhere)


MODULES = dict(sources())


def ours(name: str) -> set[str]:
    """The modules of the package that a module imports, in functions too: of ``scheme.graph.Node`` ``scheme.graph``."""
    found = set()
    for full in imports(name, MODULES[name], everywhere=True):
        if full.startswith("composer."):
            found |= _modules_of(full.removeprefix("composer."))
    return found - {name}


def _modules_of(full: str) -> set[str]:
    candidates = (full, f"{full}.__init__", full.rpartition(".")[0], f"{full.rpartition('.')[0]}.__init__".lstrip("."))
    return {next(candidate for candidate in candidates if candidate in MODULES)}


def room(name: str) -> int:
    return ORDER.index(name.split(".")[0])


def test_the_order_names_everything_that_is_there() -> None:
    there = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert there - {"__pycache__"} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


def test_at_most_ten_files_lie_beside_the_folders() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 10


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name: str) -> None:
    for other in ours(name):
        assert room(other) <= room(name), f"{name} imports {other}"


def test_there_are_no_import_cycles() -> None:
    graph = networkx.DiGraph((name, other) for name in MODULES for other in ours(name))
    assert [sorted(some) for some in networkx.strongly_connected_components(graph) if len(some) > 1] == []


def test_circles_inside_functions_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.py").write_text(f"def late():\n    from .{other} import late\n")
        monkeypatch.setitem(MODULES, name, tmp_path / f"{name}.py")
    assert ours("a") == {"b"}
    assert ours("b") == {"a"}


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[0] in PLAIN or n.endswith("__init__")])
def test_what_must_start_quickly_imports_nothing_heavy_at_its_top(name: str) -> None:
    top = {full.split(".")[0] for full in imports(name, MODULES[name], everywhere=False)}
    assert not top & HEAVY
    assert "networkx" not in top


QUICK = [
    "composer",
    "composer.plugin",
    "composer.scheme.graph",
    "composer.models.folder",
    "composer.library.maintenance",
]
DERIVED = {
    *("composer.training.callbacks.keep_sparse", "composer.training.callbacks.learn_masks"),
    "composer.steps.sparse_trainer",
}
"""Public classes that derive from one of transformers', which is imported when they are named."""
PUBLIC = sorted({f"composer.{where.partition(':')[0]}" for where in composer._WHERE.values()} - DERIVED)


@pytest.mark.parametrize("names", [QUICK, PUBLIC, ["composer.cli.app"]])
def test_quick_modules_load_nothing_heavy(names: list[str]) -> None:
    heavy = sorted(HEAVY | {"networkx"})
    code = f"import sys, {', '.join(names)}; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGING, check=True)
    assert done.stdout.split() == []
    assert done.stderr == ""
