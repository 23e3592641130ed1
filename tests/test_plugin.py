"""The door for other packages: what it has, and that the package beside this one uses no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from composer import plugin

LEGACY = Path(__file__).parent.parent / "legacy-seq2seq"


def imported(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports from, in functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield f"{node.module}"


@pytest.mark.parametrize("name", plugin.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(plugin, name) is not None
    assert name in dir(plugin)


def test_type_checkers_see_what_is_imported_on_first_use() -> None:
    block, *_ = [node for node in ast.parse(Path(plugin.__file__).read_text("utf-8")).body if isinstance(node, ast.If)]
    seen = {node.module: {a.name for a in node.names} for node in block.body if isinstance(node, ast.ImportFrom)}
    assert seen == {module: set(names) for module, names in plugin._NEEDS_TORCH.items()}
    assert set(plugin.__all__) >= set().union(*seen.values())


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"module 'composer\.plugin' has no attribute 'nothing'"):
        _ = plugin.nothing


def test_the_package_beside_this_one_comes_in_by_the_door() -> None:
    ours = {
        (path.relative_to(LEGACY).as_posix(), name)
        for path in LEGACY.rglob("*.py")
        if ".venv" not in path.parts
        for name in imported(path)
        if name.split(".")[0] == "composer"
    }
    assert {name for _, name in ours} == {"composer.plugin"}
    assert {path.rpartition("/")[0] for path, _ in ours} == {"legacy_seq2seq/compose"}
