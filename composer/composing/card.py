"""Model cards: how a model was made, what is left of it, what was measured, and how to load it.

The block of YAML at the top is what the hub reads. The part between :data:`MEASURED` marks is written again when
something is measured (:func:`with_measured`); what a user writes around it stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import InputError
from ..files.jsonfile import read_text, write_text
from ..models.folder import BaseModel
from ..models.no_targets import said
from ..scheme.graph import Node

if TYPE_CHECKING:
    from ..report.kept import Stack
    from ..shrinking.records import Report

PICTURE = "kept.png"
"""The picture of what is left, beside the card."""
MEASURED = ("<!-- measured -->", "<!-- end of measured -->")
"""Marks around what was measured."""
KINDS = (
    ("ForSequenceClassification", "text-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("MTModel", "translation"),
)
"""End of an architecture's name -> what the hub calls its task."""

MASKED = """
**This is a masked model.** The removed weights are exactly 0.0, but they are still stored: the folder is as
large and the model as slow as the dense one until it is shrunk or run by a kernel that skips zeros.
"""


@dataclass(frozen=True)
class Making:
    """How a model was made.

    Attributes:
        base: what it was made of; its card, where it has one, says the licence.
        how: in words; ``command`` is what makes it again.
        scheme: the digest of the scheme; None where there is none.
        data: fields of the YAML that only the user knows, such as ``license`` or ``language``; they win.
    """

    base: BaseModel
    how: str
    command: str = ""
    scheme: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A list for the card."""
        known = [f"- command: `{self.command}`"] if self.command else []
        known += [f"- scheme: `{self.scheme[:16]}`"] if self.scheme else []
        return [*known, "- lineage: `composer.json` names every block, versions, machine and the resolved recipe"]


def front_matter(making: Making, config: Mapping[str, Any], library: str, *tags: str) -> str:
    """The YAML that the hub reads."""
    architecture = (config.get("architectures") or [""])[0]
    above = card_data(making.base.folder / "README.md")
    kind = next((name for end, name in KINDS if architecture.endswith(end)), None)
    content: dict[str, Any] = {
        "library_name": library,
        "tags": ["pruned", *tags, "composer"],
        "base_model": making.base.title,
        **({"pipeline_tag": kind} if kind else {}),
        **{name: above[name] for name in ("license", "license_name", "license_link", "language") if name in above},
        **making.data,
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def card_data(path: Path) -> dict[str, Any]:
    """The YAML at the top of a card; empty where there is no card or nothing there that can be read."""
    if not path.is_file():
        return {}
    parts = path.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        content = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def read_card_data(path: Path | None) -> dict[str, Any]:
    """The user's fields, a YAML or JSON file.

    Raises:
        InputError: it holds something else than fields with values.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(read_text(path, InputError))
    except yaml.YAMLError as bad:
        raise InputError(f"--card-data: {path}: not valid YAML: {str(bad).splitlines()[0]}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"--card-data: {path}: allowed: fields with values, such as 'license: apache-2.0'")
    return content


def model_card(making: Making, root: Node | None, sparsity: float, kept: str = "") -> str:
    """The text of ``README.md`` of a composed model.

    Args:
        root: its configuration; None for a dense model.
        kept: what is left, in words; empty where no picture is beside the card.
    """
    base, rates, choices = making.base, root.rates if root else {}, root.choices if root else {}
    how_pruned = {path: f" ({', '.join(choice.values())})" for path, choice in choices.items()}
    rows = [f"| `{path}` | {rate:g}{how_pruned.get(path, '')} |" for path, rate in rates.items()]
    parts = [
        front_matter(making, base.config, base.storage.library, *(["masked"] if rates else [])),
        f"# {base.title}, {sparsity:.1%} of target weights removed\n",
        f"Made with Composer: {making.how}.\n",
        *([f"{outside}.\n"] if (outside := said(base.no_targets)) else []),
        "\n".join(making.lines()),
        MASKED if rates else "",
        *_picture(kept),
        *_ends(base),
        "\n".join(["| target | rate removed |", "|---|---|", *(rows or ["| (none) | 0 |"])]),
    ]
    return "\n".join(parts) + "\n"


def _picture(kept: str) -> list[str]:
    """The section about what is left."""
    return ["## What is left\n", f"{kept}.\n", f"![{kept}]({PICTURE})\n"] if kept else []


def _ends(model: BaseModel, more: str = "") -> list[str]:
    """The sections that every card has: what was measured (nothing yet), and how to load the model."""
    example = model.storage.example(model.config)
    lines = [example]
    if example.startswith("transformers."):
        tokenizer = 'tokenizer = transformers.AutoTokenizer.from_pretrained("<this folder>")'
        lines = ["import transformers", f"model = {example}", tokenizer]
    code = "\n".join(["```python", *lines, "```"])
    return [*MEASURED, "", "## Load it\n", code, more, "## Rates\n" if not more else ""]


def with_measured(card: str, lines: Sequence[str], index: Mapping[str, Any] | None = None) -> str:
    """The card with what was measured in its place; a card without the marks stays as it is.

    Args:
        index: results in the form in which the hub reads them (``model-index``).
    """
    start, end = MEASURED
    if start not in card or end not in card:
        return card
    before, after = card.split(start, 1)[0], card.split(end, 1)[1]
    section = "\n".join([start, "## Measured\n", *lines, end]) if lines else "\n".join(MEASURED)
    if index and before.startswith("---\n"):
        _, top, rest = before.split("---\n", 2)
        content = {**(yaml.safe_load(top) or {}), "model-index": [index]}
        before = f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n{rest}"
    return before + section + after


def write_card(folder: Path, card: str, stacks: Sequence[Stack], title: str) -> None:
    """Write a card and its picture into a folder."""
    from ..report.kept import draw

    draw(stacks, folder / PICTURE, title)
    write_text(folder / "README.md", card)


FORM = {
    "plain": "Any transformers loads it.",
    "padded": "Any transformers loads it, since units of zeros were kept.",
    "exact": "Every layer has its own shape; `modeling_shrunk.py` beside the weights loads them.",
}


def shrunk_card(name: str, model: BaseModel, report: Report, making: Making, kept: str = "") -> str:
    """The text of ``README.md`` of a shrunk model; ``name`` is the masked one's."""
    verified = report.verification
    tokens = f", {verified.generated} generated tokens are equal" if verified and verified.generated else ""
    rows = (f"| `{r.path}` | {r.units.after:,} of {r.units.before:,} | {r.zeros:,} |" for r in report.rows)
    difference = verified.difference if verified else 0.0
    alone = "Or `composer.load` without that code.\n" if report.form == "exact" else "\n"
    parts = [
        front_matter(making, model.config, "transformers", "shrunk"),
        f"# {name}, shrunk\n",
        f"What was removed from {name} is gone: {report.parameters.before:,} parameters became "
        f"{report.parameters.after:,}, {report.bytes.before:,} bytes {report.bytes.after:,}. The answers are the same: "
        f"logits differ by at most {difference:.1g}{tokens}. {FORM[report.form]}\n",
        *making.lines(),
        "",
        *_picture(kept),
        *_ends(model, alone),
        "## Layers\n",
        "\n".join(["| part | kept | zeros inside |", "|---|---|---|", *rows]),
    ]
    return "\n".join(parts) + "\n"
