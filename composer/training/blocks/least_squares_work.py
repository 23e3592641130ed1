"""How much work closed forms are, and how much memory they take: what :mod:`.least_squares` does, counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...scheme.graph import Node
from ...scheme.layout import End
from ..work import BlockWaves, Work, most, parts


def work_of(blocks: BlockWaves, *, weighted: bool = False) -> Iterator[Work]:
    """A solve for each sublayer's end; passes for the blocks that do not read what the base model reads.

    Args:
        weighted: sums over these blocks' own inputs weigh tokens, by a pass back that is taken for a pass of moments.
    """
    known = set[str]()
    gathered = blocks.gathered and blocks.passes == 1  # moments of several passes are not kept
    for wave in blocks.waves:
        base_inputs = [node for node in wave if _reads_base_inputs(node, blocks)]
        own_inputs = [node for node in wave if not _reads_base_inputs(node, blocks)]
        if base_inputs and not gathered:
            yield Work("gather", blocks.passes)
            gathered = blocks.passes == 1
        for node in wave:
            for k in range(len(_ends(node, blocks))):
                yield Work("solve", 1, (blocks.like(node), k), _operations(node, k, blocks))
        for node in {_inputs(node, blocks)[1:]: node for node in base_inputs}.values():
            yield Work("prepare", 1, (blocks.like(node), 0), _operations(node, 0, blocks))
        read = {end.last.path for node in own_inputs for end in _ends(node, blocks)}
        if weighted and read - known:
            yield Work("gather", 1)
            known |= read
        for k, first_ones in enumerate(_rounds(own_inputs, blocks)):
            yield Work("show", parts([blocks.sizes.own_moments(node, k) for node in first_ones], blocks.memory))
            for node in first_ones:
                yield Work("probe", 1, (blocks.like(node), k), blocks.sizes.weights(node))
                yield Work("prepare", 1, (blocks.like(node), k), _operations(node, k, blocks))


def memory_of(blocks: BlockWaves) -> int:
    """Moments, those of the base model's inputs and those of blocks' own, and the matrices of a solve."""
    sizes, memory = blocks.sizes, blocks.memory
    own = [node for node in blocks.nodes if not _reads_base_inputs(node, blocks)]
    probed = most(
        [sizes.own_moments(node, k, solving=True) for node in first_ones]
        for k, first_ones in enumerate(_rounds(own, blocks))
    )
    moments = sizes.moments + probed if memory is None else min(sizes.moments, memory) + min(probed, memory)
    return moments + sizes.scratch(blocks.scheme.modules)


def _rounds(nodes: Sequence[Node], blocks: BlockWaves) -> Iterator[list[Node]]:
    """For each sublayer in these blocks, those that need moments of their own: one of all with equal inputs."""
    ends = {node.hash: len(_ends(node, blocks)) for node in nodes}
    for k in range(max(ends.values(), default=0)):
        here = [node for node in nodes if k < ends[node.hash]]
        yield list({_inputs(node, blocks) if ends[node.hash] == 1 else node.hash: node for node in here}.values())


def _ends(node: Node, blocks: BlockWaves) -> Sequence[End]:
    return blocks.layout.ends(node.block(blocks.layout))


def _operations(node: Node, k: int, blocks: BlockWaves) -> float:
    """Operations of a solve or of what solves share, to compare sizes by.

    The inverse takes ``in³``, conjugate gradients about a hundred products of ``in² · out``.
    """
    last = blocks.layout.ends(node.block(blocks.layout))[k].last
    return last.in_features**2 * (last.in_features + 100 * last.out_features)


def _reads_base_inputs(node: Node, blocks: BlockWaves) -> bool:
    """Whether nothing but heads or neurons is pruned before its last projection."""
    return node.units_before(blocks.layout) is not None


def _inputs(node: Node, blocks: BlockWaves) -> tuple[str, ...]:
    """What decides what the last projection reads: the block, the projection, what is pruned before it."""
    last = node.block(blocks.layout).targets[-1]
    before = (child for child in node.children if last not in blocks.scheme.nodes[child].rates)
    return (node.path, last, *before)
