"""The texts of ``benchmarks/calibration_study.py``: calibration sets, a mixture to learn from, and what is measured.

What is learnt, what is calibrated on and what is measured are different examples of the same sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from composer.files.jsonfile import write_text

Row = dict[str, Any]
REPEATS = 6
"""How often the few programs of MBPP stand in the mixture."""
CHARACTERS = 2_500_000
"""Of each other source in the mixture."""


def lines(path: Path) -> list[str]:
    """Lines of a text file."""
    return path.read_text("utf-8").split("\n")


def rows(path: Path) -> list[Row]:
    """Objects of a JSON Lines file."""
    return [json.loads(line) for line in lines(path) if line]


def programs(data: Path, first: int, last: int) -> list[Row]:
    """Problems of MBPP with these numbers: a sentence and a program."""
    found = [row for row in rows(data / "mbpp/mbpp.jsonl") if first <= row["task_id"] <= last]
    return [{"text": row["text"], "code": row["code"].replace("\r\n", "\n")} for row in found]


def write_rows(path: Path, some: Sequence[Row]) -> None:
    """As JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some))


def write_sets(data: Path, folder: Path) -> dict[str, Path]:
    """The calibration sets, each in the format that it comes in: name -> file."""
    c4, sums = rows(data / "c4_sample/c4_en_1000.jsonl"), rows(data / "gsm8k/train.jsonl")
    choices = rows(data / "csr/openbookqa.jsonl")
    write_rows(folder / "c4.jsonl", [{"text": row["text"]} for row in c4[600:800]])
    write_rows(folder / "gsm8k.jsonl", sums[6000:7000])
    write_rows(folder / "mbpp.jsonl", programs(data, 601, 974))
    write_rows(folder / "openbookqa.jsonl", choices)
    write_text(folder / "wikitext.txt", "\n".join(lines(data / "wikitext-2/train.txt")[30000:33000]) + "\n")
    write_text(folder / "multi30k.txt", "\n".join(lines(data / "multi30k/train.en")[20000:24000]) + "\n")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}


def write_mixture(data: Path, folder: Path) -> Path:
    """Text that a small language model learns from: encyclopedia, web, sums and programs, in turns."""
    if (folder / "valid.txt").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    sums = [f"{row['question']}\n{row['answer']}" for row in rows(data / "gsm8k/train.jsonl")[:6000]]
    code = [f"{row['text']}\n{row['code']}" for row in programs(data, 601, 974)]
    web = [row["text"] for row in rows(data / "c4_sample/c4_en_1000.jsonl")[:600]]
    wiki = [line.strip() for line in lines(data / "wikitext-2/train.txt")[:30000] if line.strip()]
    texts = [_some(wiki), _some(web), _some(sums), code * REPEATS]
    for split, parts in (("valid", [part[:40] for part in texts]), ("train", [part[40:] for part in texts])):
        write_text(folder / f"{split}.txt", "\n\n".join(text for part in parts for text in part) + "\n")
    return folder


def write_measured(data: Path, folder: Path) -> Path:
    """A folder for ``--suite-data``: held-out text of every domain, and sentences to translate."""
    write_rows(folder / "c4/validation.jsonl", rows(data / "c4_sample/c4_en_1000.jsonl")[800:])
    write_rows(folder / "gsm8k/test.jsonl", rows(data / "gsm8k/test.jsonl"))
    write_rows(folder / "mbpp/test.jsonl", [{"task_id": 11, **row} for row in programs(data, 11, 510)])
    for name in ("wikitext-2/test.txt", "multi30k/test_2016_flickr.en", "multi30k/test_2016_flickr.de"):
        (folder / name).parent.mkdir(exist_ok=True)
        write_text(folder / name, (data / name).read_text("utf-8"))
    return folder


def _some(texts: Sequence[str]) -> list[str]:
    """The first texts, up to :data:`CHARACTERS`."""
    return list(_until(texts))


def _until(texts: Sequence[str]) -> Iterator[str]:
    left = CHARACTERS
    for text in texts:
        if left < 0:
            return
        left -= len(text)
        yield text
