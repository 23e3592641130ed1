"""How much work and memory the blocks of a scheme take: what their trainer says, and learning in context after it."""

from __future__ import annotations

from collections.abc import Iterator

from ..composing.assemble import cover
from ..errors import PluginError
from ..scheme.graph import SHARED
from ..steps.settings import joint_rates, tried_steps
from ..training.blocks import TRAINERS
from ..training.work import UNITS, BlockWaves, Work, most
from .workload import Blocks, Setting, files_of


def tuning(blocks: Blocks, setting: Setting) -> Iterator[Work]:
    """Tune these blocks with the recipe's trainer, and store them.

    Raises:
        PluginError: a trainer of another package speaks of work that nobody knows.
    """
    if setting.waves:
        for work in TRAINERS.get(setting.waves.trainer).work(block_waves(blocks, setting), setting.waves):
            if work.unit not in UNITS:
                allowed = ", ".join(UNITS)
                raise PluginError(f"trainer {setting.waves.trainer!r}: unknown work {work.unit!r}; allowed: {allowed}")
            yield work
    if TRAINERS.get(setting.recipe.trainer).in_context:
        yield from in_context(blocks, setting)
    yield from files_of([setting.sizes.tuned(node) for node in blocks.nodes])


def in_context(blocks: Blocks, setting: Setting) -> Iterator[Work]:
    """Steps of whole models in which all configurations take turns, and what they leave."""
    options = setting.together
    every = max(1, -(-options.steps // options.evaluations))
    if SHARED not in blocks.joint:
        least = min(options.steps, every * options.patience)
        tries = len(joint_rates(setting.recipe)) * tried_steps(options.steps)
        yield Work("joint", options.steps + tries, (options.batch_size,), least=least + tries)
        yield from setting.answers(options.steps + tries, options.batch_size)
    yield from files_of(shared_files(blocks, setting))


def shared_files(blocks: Blocks, setting: Setting) -> list[int]:
    """Sizes of what learning in context stores beside the blocks that it starts from: the model, and blocks anew."""
    tuned = setting.tuned_nodes()
    size = setting.sizes.tuned if tuned else setting.sizes.pruned
    names = {node.hash: "" for node in tuned or setting.pruned_nodes()}
    tops = [node for i in range(blocks.configurations) for node in cover(setting.scheme, i, names)]
    sizes = {SHARED: setting.sizes.model} | {node.hash: size(node) for node in tops}
    if own := setting.sizes.own(setting.recipe.finetune.own):
        sizes |= dict.fromkeys(setting.scheme.roots[: blocks.configurations], own)
    return [sizes[name] for name in sizes if name not in blocks.joint]


def memory_of_blocks(blocks: Blocks, setting: Setting) -> int:
    """Bytes of the block phase beside the base model: the blocks of a wave, and what their trainer needs."""
    learning = block_waves(blocks, setting)
    if setting.waves is None or not learning.waves:
        return 0
    tuned = most([setting.sizes.tuned(node) for node in wave] for wave in learning.waves)
    return tuned + TRAINERS.get(setting.waves.trainer).memory(learning, setting.waves)


def block_waves(blocks: Blocks, setting: Setting) -> BlockWaves:
    """What is tuned, wave by wave; leaves that lose heads or neurons are stored as they are."""
    names = {node.hash for node in blocks.nodes}
    waves = [
        [node for node in wave if node.hash in names and not node.is_whole_leaf(setting.layout)]
        for wave in setting.scheme.waves()
    ]
    return BlockWaves(
        [wave for wave in waves if wave],
        setting.scheme,
        setting.layout,
        setting.sizes,
        setting.like,
        setting.valid,
        setting.recipe.memory,
        blocks.gathered,
    )
