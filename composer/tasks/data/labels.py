"""A classifier's labels: names and ids of config.json, and what data files write for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...errors import ModelError, shown
from .formats import MISSING, Table

NO_LABEL = "(none)"
"""What stands for a text that may have several labels and has none."""


@dataclass(frozen=True)
class Labels:
    """Label names in the order of their ids.

    >>> labels = Labels(("negative", "positive"))
    >>> labels.find("positive"), labels.find("0"), labels.find(1), labels.find("good")
    ('positive', 'negative', 'positive', None)
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, config: dict[str, Any]) -> Labels:
        """Labels that config.json states (``id2label``, else ``label2id``, else ``num_labels``).

        Raises:
            ModelError: ids that are not 0, 1, ...; a name given twice; fewer than two labels.
        """
        by_id = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
        by_id = by_id or {int(value): str(name) for name, value in (config.get("label2id") or {}).items()}
        # transformers leaves its default of two unnamed labels out of config.json.
        by_id = by_id or {i: f"LABEL_{i}" for i in range(config.get("num_labels") or 2)}
        if sorted(by_id) != list(range(len(by_id))) or len(set(by_id.values())) < len(by_id):
            raise ModelError(f"config.json: id2label needs ids 0, 1, ... with different names; got {by_id}")
        if len(by_id) < 2:
            raise ModelError(
                f"config.json: classification needs two labels or more; got {by_id} (regression is not supported)"
            )
        return cls(tuple(by_id[i] for i in range(len(by_id))))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> id."""
        return {name: i for i, name in enumerate(self.names)}

    def find(self, value: Any) -> str | None:
        """Name of the label that a file writes as a name or as an id; None when it is neither.

        A name goes before an id, so labels that are called "1" and "2" mean themselves; case counts only where the
        model has names that differ in nothing else.
        """
        text = str(value).strip()
        if text in self.ids:
            return text
        if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
            text = str(int(value))
        text = re.sub(r"\.0+$", "", text)  # as pandas writes integers of a column with gaps
        if text.isascii() and text.isdigit() and int(text) < len(self):
            return self.names[int(text)]
        alike = [name for name in self.names if name.casefold() == text.casefold()]
        return alike[0] if len(alike) == 1 else None

    def resolve(self, table: Table, column: str) -> tuple[list[str], list[str]]:
        """Names of the labels in a column, and one problem per row whose label is none of the model's.

        A dataset that names its own integers, with names that the model knows, is read by those names: the
        same classes may be numbered differently.
        """
        decimal = next((row for row, value in enumerate(table.columns[column]) if _has_decimals(value)), None)
        if decimal is not None:
            return [], [
                f"{table.at(decimal)}: {column} is {table.columns[column][decimal]}: scores (regression, as in STS-B) "
                "are not supported; expected are classes"
            ]
        own = [self.find(name) for name in table.label_names.get(column, [])]
        by_name = bool(own) and None not in own
        names: list[str | None] = []
        for value in table.columns[column]:
            named = by_name and isinstance(value, int) and 0 <= value < len(own)
            names.append(own[value] if named else self.find(value))
        wrong = [self._problem(table, column, row) for row, name in enumerate(names) if name is None]
        return [name or "" for name in names], wrong

    def resolve_several(self, table: Table, column: str) -> tuple[list[str], list[str]]:
        """Names of each row's labels, by id and parted by commas; and one problem per row that has others.

        A cell is a list of names or ids, or text with names parted by commas, semicolons or bars. Where every cell is a
        list of 0 and 1 as long as the model has labels, it says yes or no to each.
        """
        cells = table.columns[column]
        said = [self.find(name) for name in table.label_names.get(column, [])]
        by_name = bool(said) and None not in said
        flags = all(_is_list(cell) and len(cell) == len(self) and set(cell) <= {0, 1} for cell in cells)
        rows, wrong = [], []
        for row, cell in enumerate(cells):
            if flags:
                own: list[str | None] = [name for name, is_one in zip(self.names, cell, strict=True) if is_one]
            else:
                parts = list(cell) if _is_list(cell) else [p for p in re.split("[,;|]", str(cell or "")) if p.strip()]
                own = [
                    said[p] if by_name and isinstance(p, int) and 0 <= p < len(said) else self.find(p) for p in parts
                ]
            if cell is MISSING or None in own:
                wrong.append(self._problem(table, column, row))
            rows.append(", ".join(name for name in self.names if name in own) or NO_LABEL)
        return rows, wrong

    def _problem(self, table: Table, column: str, row: int) -> str:
        value = table.columns[column][row]
        got = "is missing" if value is MISSING else f"{shown(value)} is no label of the model"
        if str(value) == "-1":
            got += " (hidden, as in the test splits of GLUE: name a labelled split with test_split)"
        allowed = ", ".join(f"{name} or {i}" for i, name in enumerate(self.names))
        return f"{table.at(row)}: {column} {got}; allowed: {allowed}"


def _is_list(cell: Any) -> bool:
    return isinstance(cell, (list, tuple))


def _has_decimals(value: Any) -> bool:
    """Whether a label is a number with a fraction, as a number or as text."""
    try:
        return isinstance(value, (float, str)) and "." in str(value) and not float(value).is_integer()
    except ValueError:
        return False
