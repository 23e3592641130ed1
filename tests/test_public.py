"""What is public: the exact names, with signatures for readers, editors and type checkers alike."""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import composer
from tests.reference.events import HANGING

ROOT = Path(__file__).parent.parent
CLASSES = {
    "ComposerError",
    "InputError",
    "KeepSparse",
    "LearnMasks",
    "Outcome",
    "Progress",
    "Recipe",
    "SparseTrainer",
    "Workspace",
}
FUNCTIONS = {
    *(
        "build_model",
        "choose",
        "compare",
        "demo_recipe",
        "distill_loss",
        "download",
        "evaluate",
        "export",
        "finetune_blocks",
    ),
    "finetune_model",
    *(
        "generate_config",
        "generate_scheme",
        "load",
        "load_recipe",
        "mask_adapters",
        "merge",
        "open",
        "plan",
        "predict",
        "prune",
        "run",
    ),
    *("show_model", "show_scheme", "shrink", "simplify", "sparse", "speed"),
}
STRANGERS = (
    *("torch", "numpy", "networkx", "pydantic", "pydantic_core", "yaml", "safetensors", "huggingface_hub"),
    *("jinja2", "psutil", "matplotlib", "transformers", "tokenizers", "datasets", "accelerate", "sklearn"),
    *("sacrebleu", "pyarrow", "greenlet", "ray"),
)
"""What the modules of the package import: a type checker need not read them to see our signatures."""


def test_these_are_the_public_names() -> None:
    assert set(composer.__all__) == {"__version__"} | CLASSES | FUNCTIONS
    assert dir(composer) == sorted(composer.__all__)
    for name in CLASSES:
        assert inspect.isclass(getattr(composer, name))
    with pytest.raises(AttributeError, match="module 'composer' has no attribute 'nothing'"):
        _ = composer.nothing


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_public_function_says_what_it_takes_and_does(name: str) -> None:
    function = getattr(composer, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert parameter.annotation is not parameter.empty


def test_help_shows_what_is_public_and_nothing_else() -> None:
    shown = pydoc.render_doc(composer, renderer=pydoc.plaintext)
    sections = dict(re.findall(r"^([A-Z ]+)\n(.*?)(?=^[A-Z]|\Z)", shown, re.DOTALL | re.MULTILINE))
    assert set(re.findall(r"^    (\w+)(?: = \w+)?\(", sections["FUNCTIONS"], re.MULTILINE)) == FUNCTIONS
    assert set(re.findall(r"^    class (\w+)", sections["CLASSES"], re.MULTILINE)) == CLASSES
    assert "_WHERE" not in shown


@pytest.fixture(scope="module")
def revealed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy, as strict as it can be, says of a user's file that names everything public."""
    folder = tmp_path_factory.mktemp("user")
    names = sorted(CLASSES | FUNCTIONS)
    user = folder / "user.py"
    user.write_text("import composer\n" + "".join(f"reveal_type(composer.{name})  # {name}\n" for name in names))
    skipped = ",".join(f"{name},{name}.*" for name in STRANGERS)
    settings = folder / "mypy.ini"
    settings.write_text(
        f"[mypy]\nstrict = True\nfollow_imports = silent\nmypy_path = {ROOT}\n"
        f"[mypy-{skipped}]\nfollow_imports = skip\nfollow_imports_for_stubs = True\nignore_missing_imports = True\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(folder / "cache")]
    done = subprocess.run([*command, str(user)], capture_output=True, text=True, cwd=folder, timeout=HANGING)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(CLASSES | FUNCTIONS))
def test_a_type_checker_sees_the_signature(name: str, revealed: str) -> None:
    place = sorted(CLASSES | FUNCTIONS).index(name) + 2
    [line] = [line for line in revealed.splitlines() if f"user.py:{place}:" in line]
    assert 'Revealed type is "def (' in line
    for parameter in inspect.signature(getattr(composer, name)).parameters if name in FUNCTIONS else ():
        assert f"{parameter}:" in line


def test_a_type_checker_sees_the_types_of_a_step(revealed: str) -> None:
    [line] = [
        line for line in revealed.splitlines() if "scheme: " in line and "output: " in line and "i: " not in line
    ][:1]
    assert "composer.recipe.whole.Recipe | composer.workspace.Workspace" in line
    assert "-> composer.steps.outcome.Outcome" in line


def test_the_distribution_has_a_name_of_its_own_and_every_file_says_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (project["name"], project["version"]) == ("composer-pruning", composer.__version__)
    assert set(project["scripts"]) == {"compose"}
    files = [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "composer").rglob("*.py"),
    ]
    extras = {(path.name, name) for path in files for name in re.findall(r"([\w-]+)\[ray\]", path.read_text("utf-8"))}
    assert {name for _, name in extras} == {project["name"]}
    assert {"ray.py", "scaling.md"} <= {file for file, _ in extras}


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(composer.__file__).parent / "py.typed").is_file()
