"""How much work each block trainer has with the blocks of a scheme: one function and one row of :data:`BLOCKS` each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..composing.assemble import cover
from ..errors import RecipeError
from ..scheme.graph import SHARED, Node
from .footprint import LEARNING, most
from .workload import Blocks, Setting, Work, parts, stored


def tuning(blocks: Blocks, setting: Setting) -> Iterator[Work]:
    """Tune these blocks with the recipe's trainer."""
    if setting.recipe.trainer not in BLOCKS:
        raise RecipeError(f"--trainer: no forecast for {setting.recipe.trainer!r}; allowed: {', '.join(BLOCKS)}")
    yield from BLOCKS[setting.recipe.trainer](blocks, setting)
    yield from stored([setting.sizes.tuned(node) for node in blocks.nodes])


def distill(blocks: Blocks, setting: Setting) -> Iterator[Work]:
    """Steps and validations; one pass of the base model feeds all blocks of a wave. Blocks may stop early."""
    from ..training.blocks.stepping import VALIDATIONS

    block = setting.recipe.block
    every = max(1, -(-block.steps // VALIDATIONS))
    batches = -(-setting.valid // block.batch_size)
    looks = 1 + -(-block.steps // every)
    steps, soonest = min(block.steps, every * block.patience), 1 + min(looks - 1, block.patience)
    for wave in waves(blocks, setting):
        least = steps + batches * soonest
        yield Work("teach", block.steps + batches * looks, least=least)
        for node in wave:
            own = setting.sizes.weights(node)
            of = (setting.like(node),)
            yield Work("learn", block.steps, of, own, steps)
            yield Work("look", batches * looks, of, own, batches * soonest)


def least_squares(blocks: Blocks, setting: Setting) -> Iterator[Work]:
    """A solve for each sublayer's end; passes for those that do not read what the base model reads."""
    memory = setting.recipe.memory
    gathered = blocks.gathered and setting.passes == 1
    for wave in waves(blocks, setting):
        own = [node for node in wave if not _reads_base_inputs(node, setting)]
        if len(own) < len(wave) and not gathered:
            yield Work("gather", setting.passes)
            gathered = setting.passes == 1
        for node in wave:
            yield from _solves(node, setting)
        for node in {_inputs(node, setting)[1:]: node for node in wave if _reads_base_inputs(node, setting)}.values():
            yield Work("prepare", 1, (setting.like(node), 0), _effort(node, 0, setting))
        for k, classes in enumerate(rounds(own, setting)):
            split = parts([setting.sizes.own_moments(node, k) for node in classes], memory)
            yield Work("show", split)
            for node in classes:
                yield Work("probe", 1, (setting.like(node), k), setting.sizes.weights(node))
                yield Work("prepare", 1, (setting.like(node), k), _effort(node, k, setting))


def joint(blocks: Blocks, setting: Setting) -> Iterator[Work]:
    """The closed forms, then steps of whole models in which all configurations take turns."""
    block = setting.recipe.block
    yield from least_squares(blocks, setting)
    every = max(1, -(-block.steps // block.evaluations))
    if SHARED not in blocks.joint:
        yield Work("joint", block.steps, (block.batch_size,), least=min(block.steps, every * block.patience))
    yield from stored(shared_files(blocks, setting))


def shared_files(blocks: Blocks, setting: Setting) -> list[int]:
    """Sizes of what joint tuning stores beside the blocks that it starts from: the model, and the blocks anew."""
    tuned = setting.tuned_nodes()
    size = setting.sizes.tuned if tuned else setting.sizes.pruned
    names = {node.hash: "" for node in tuned or setting.pruned_nodes()}
    tops = [node for i in range(blocks.configurations) for node in cover(setting.scheme, i, names)]
    sizes = {SHARED: setting.sizes.model} | {node.hash: size(node) for node in tops}
    return [sizes[name] for name in sizes if name not in blocks.joint]


BLOCKS: dict[str, Callable[[Blocks, Setting], Iterator[Work]]] = {
    "distill": distill,
    "least_squares": least_squares,
    "joint": joint,
}
"""Block trainer -> its work, files not counted."""


def waves(blocks: Blocks, setting: Setting) -> Iterator[list[Node]]:
    """What is learnt, wave by wave; leaves that lose heads or neurons are stored as they are."""
    wanted = {node.hash for node in blocks.nodes}
    for wave in setting.scheme.waves():
        some = [node for node in wave if node.hash in wanted and not node.is_whole_leaf(setting.layout)]
        if some:
            yield some


def rounds(nodes: Sequence[Node], setting: Setting) -> Iterator[list[Node]]:
    """For each sublayer in these blocks, those that need moments of their own: one of all with equal inputs."""
    ends = {node.hash: len(setting.layout.ends(node.block(setting.layout))) for node in nodes}
    for k in range(max(ends.values(), default=0)):
        here = [node for node in nodes if k < ends[node.hash]]
        yield list({_inputs(node, setting) if ends[node.hash] == 1 else node.hash: node for node in here}.values())


def memory_of_blocks(blocks: Blocks, setting: Setting) -> int:
    """Bytes of the block phase beside the base model: moments, the blocks of a wave, what they learn with."""
    sizes, memory = setting.sizes, setting.recipe.memory
    in_waves = list(waves(blocks, setting))
    held = most([sizes.tuned(node) for node in wave] for wave in in_waves)
    if setting.recipe.trainer == "distill":
        return held + most([(LEARNING + 1) * sizes.weights(node) for node in wave] for wave in in_waves)
    own = [node for node in blocks.nodes if not _reads_base_inputs(node, setting)]
    probed = most(
        [sizes.own_moments(node, k, solving=True) for node in some] for k, some in enumerate(rounds(own, setting))
    )
    kept = sizes.moments + probed if memory is None else min(sizes.moments, memory) + min(probed, memory)
    return held + kept + sizes.scratch(setting.scheme.modules) if in_waves else 0


def _solves(node: Node, setting: Setting) -> Iterator[Work]:
    ends = setting.layout.ends(node.block(setting.layout))
    for k in range(len(ends)):
        yield Work("solve", 1, (setting.like(node), k), _effort(node, k, setting))


def _effort(node: Node, k: int, setting: Setting) -> float:
    """Operations of a solve or of what solves share, to compare sizes by."""
    last = setting.layout.ends(node.block(setting.layout))[k].last
    return last.in_features**2 * (last.in_features + 100 * last.out_features)


def _reads_base_inputs(node: Node, setting: Setting) -> bool:
    """Whether nothing but heads is pruned before its last projection."""
    return node.level != "layer" and set(setting.kinds(setting.targets_of(node)[:-1])) <= {"attention"}


def _inputs(node: Node, setting: Setting) -> tuple[str, ...]:
    """What decides what the last projection reads: the block, the projection, what is pruned before it."""
    last = setting.targets_of(node)[-1]
    before = (child for child in node.children if last not in setting.scheme.nodes[child].rates)
    return (node.path, last, *before)
