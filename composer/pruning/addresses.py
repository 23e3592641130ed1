"""Where pruned variants lie in a library: the lineage of each, from which its address follows.

Pure functions of the scheme and the settings: no library is asked, no model is loaded and nothing is written, so that
a forecast can say what is stored already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..library.store import address_of
from ..scheme.graph import Node, Scheme
from ..scheme.layout import Layout
from .criteria.choice import criterion_of, identity_of
from .criteria.criterion import Criterion


def variant_addresses(
    scheme: Scheme, layout: Layout, criterion: Criterion, settings: Mapping[str, Any], *, dead_columns: bool
) -> dict[str, str]:
    """Node hash -> address of everything that pruning stores for ``scheme``; arguments as for
    :func:`variant_lineages`."""
    lineages = variant_lineages(scheme, layout, criterion, settings, dead_columns=dead_columns)
    return {name: address_of(lineage) for name, lineage in lineages.items()}


def variant_lineages(
    scheme: Scheme, layout: Layout, criterion: Criterion, settings: Mapping[str, Any], *, dead_columns: bool
) -> dict[str, dict[str, Any]]:
    """Node hash -> lineage of everything that pruning stores for ``scheme``, in the order in which it does.

    Args:
        criterion: of the nodes that name none.
        settings: what identifies the criteria's statistics (calibration sample, data digest; seed of those that draw).
        dead_columns: as for :meth:`~composer.scheme.graph.Scheme.pruned_nodes`.
    """
    nodes = scheme.pruned_nodes(layout, dead_columns=dead_columns)
    identities = {n.hash: identity_of(criterion_of(n, scored_target(n), criterion), settings) for n in nodes}
    return {n.hash: pruned_lineage(n, scheme.fingerprint, _with_heads(n, identities)) for n in nodes}


def pruned_lineage(node: Node, fingerprint: str, criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines a pruned variant's bytes.

    Args:
        criterion: its identity (:func:`~composer.pruning.criteria.choice.identity_of`).
    """
    return {"stage": "pruned", "node": node.hash, "base": fingerprint, "criterion": dict(criterion)}


def scored_target(node: Node) -> str:
    """Path of the target that is scored for a node: a leaf's own, in a sublayer with heads the out-projection.

    Those heads are a leaf of their own, which is stored before.
    """
    return list(node.rates)[-1]


def _with_heads(node: Node, identities: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """A node's criterion; where the heads before it went by another one, that too, because its masks follow theirs."""
    own = identities[node.hash]
    heads = identities[node.children[0]] if node.children else own
    return own if heads == own else {**own, "heads": heads}
