"""Calibration text from elsewhere, laid out as the data of a task: sentences of C4 or WikiText-2 as its inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from composer.workspace import Workspace

SHORTEST, LONGEST = 5, 30
"""Words of a sentence that is taken."""


def documents(shared: Path, source: str) -> Iterator[str]:
    """Documents of C4, paragraphs of WikiText-2 without headings, or the English side of Multi30K."""
    if source == "c4":
        for line in (shared / "data/c4_sample/c4_en_1000.jsonl").read_text("utf-8").split("\n"):
            if line:
                yield json.loads(line)["text"]
    elif source == "wikitext":
        lines = (shared / "data/wikitext-2/train.txt").read_text("utf-8").split("\n")
        yield from (line.strip() for line in lines if line.strip() and not line.startswith(" = "))
    else:
        yield from (shared / "data/multi30k/train.en").read_text("utf-8").split("\n")


def sentences(shared: Path, source: str, count: int) -> list[str]:
    """``count`` sentences of ordinary length, spread over the source."""
    found = []
    for document in documents(shared, source):
        own = [" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+", document)]
        fits = [s for s in own if SHORTEST <= len(s.split()) <= LONGEST]
        found += fits[:3]  # of each, so that no document is all of the sample
        if len(found) >= count:
            break
    return found[:count]


def written(space: Workspace, shared: Path, source: str, count: int) -> str:
    """A data folder for ``space``'s task with text of ``source`` as its training split; returns its path.

    A translation's target is what the base model makes of the sentence. A label is looked at by no criterion of this
    sample (moments of inputs need none): it is always the first.
    """
    folder, name = space.folder / "texts" / source, space.task.name
    marker = folder / "done"
    if marker.is_file():
        return str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if name == "language_model":
        text = "\n".join(document for document, _ in zip(documents(shared, source), range(4000), strict=False))
        (folder / "train.txt").write_text(text + "\n", "utf-8")
        (folder / "valid.txt").write_text(text[:20_000] + "\n", "utf-8")
    else:
        inputs = sentences(shared, source, count)
        if name == "translation":
            answers = space.task.predict(space.fresh_model(), inputs)
            pairs = [(a, b) for a, b in zip(inputs, answers, strict=True) if b.strip()]
            for split, held in (("train", pairs), ("valid", pairs[:32])):
                (folder / f"{split}.en").write_text("".join(f"{a}\n" for a, _ in held), "utf-8")
                (folder / f"{split}.de").write_text("".join(f"{b}\n" for _, b in held), "utf-8")
        else:
            for split, some in (("train", inputs), ("validation", inputs[:32])):
                rows = "".join(f"{text.lower()}\t{i % 2}\n" for i, text in enumerate(some))
                (folder / f"{split}.tsv").write_text("sentence\tlabel\n" + rows, "utf-8")
    marker.touch()
    return str(folder)
