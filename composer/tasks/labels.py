"""A classifier's labels: names and ids of config.json, and what data files write for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import ModelError
from .formats import MISSING, Table


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
            raise ModelError(f"config.json: classification needs two labels or more; got {by_id}")
        return cls(tuple(by_id[i] for i in range(len(by_id))))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> id."""
        return {name: i for i, name in enumerate(self.names)}

    def find(self, value: Any) -> str | None:
        """Name of the label that a file writes as a name or as an id; None when it is neither.

        A name goes before an id, so labels that are called "1" and "2" mean themselves.
        """
        text = str(value).strip()
        if text in self.ids:
            return text
        if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
            text = str(int(value))
        return self.names[int(text)] if text.isascii() and text.isdigit() and int(text) < len(self) else None

    def resolve(self, table: Table, column: str) -> tuple[list[str], list[str]]:
        """Names of the labels in a column, and one problem per row whose label is none of the model's.

        A dataset that names its own integers, with names that the model knows, is read by those names: the
        same classes may be numbered differently.
        """
        own = table.label_names.get(column, [])
        by_name = bool(own) and all(name in self.ids for name in own)
        found: list[str | None] = []
        for value in table.columns[column]:
            named = by_name and isinstance(value, int) and 0 <= value < len(own)
            found.append(own[value] if named else self.find(value))
        wrong = [self._problem(table, column, row) for row, name in enumerate(found) if name is None]
        return [name or "" for name in found], wrong

    def _problem(self, table: Table, column: str, row: int) -> str:
        value = table.columns[column][row]
        got = "is missing" if value is MISSING else f"{value!r} is no label of the model"
        allowed = ", ".join(f"{name} or {i}" for i, name in enumerate(self.names))
        return f"{table.at(row)}: {column} {got}; allowed: {allowed}"
