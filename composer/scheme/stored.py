"""Reading ``conf_prune.json``, which :meth:`composer.scheme.graph.Scheme.save` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import SchemeError
from ..files.jsonfile import digest_of, read_json
from .graph import FORMAT, Node, Scheme


def load_scheme(path: Path) -> Scheme:
    """Read ``conf_prune.json`` and hold it to its digest.

    Raises:
        SchemeError: unreadable, of another format, or edited by hand; the line says what to regenerate.
    """
    again = "run `compose generate-scheme` again"
    raw = read_json(path, SchemeError)
    try:
        if "format" not in raw and "configurations" in raw:
            raise SchemeError(
                f"{path}: holds configurations; `compose generate-scheme -c {path}` makes a scheme of them"
            )
        if raw["format"] != FORMAT:
            raise SchemeError(f"{path}: format is {raw['format']!r}; this version reads {FORMAT}; {again}")
        if not _holds({key: value for key, value in raw.items() if key != "digest"}, raw["digest"]):
            raise SchemeError(
                f"{path}: its digest does not hold: the file was edited or damaged; it is generated, so {again}"
            )
        nodes = [
            Node(n["hash"], n["level"], n["path"], dict(n["rates"]), tuple(n["children"]), dict(n.get("choices", {})))
            for n in raw["nodes"]
        ]
        return Scheme(
            raw["model"],
            raw["fingerprint"],
            tuple(raw["block_levels"]),
            {node.hash: node for node in nodes},
            tuple(raw["configurations"]),
        )
    except (KeyError, TypeError, AttributeError) as bad:
        raise SchemeError(f"{path}: not a scheme ({bad.args[0]!r} is missing or wrong); {again}") from None


def _holds(content: dict[str, Any], digest: Any) -> bool:
    """Whether all that a file says, known to this version or not, has the digest that it states."""
    try:
        return digest_of(content) == digest
    except ValueError:  # NaN, which no scheme holds
        return False
