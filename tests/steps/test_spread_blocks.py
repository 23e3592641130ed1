"""The block phase spread over workers: same bytes, whoever makes them; here the workers are this very process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import composer
from composer.errors import WorkerError
from composer.library.store import Library
from composer.progress import Bar, Progress
from composer.recipe import Recipe
from composer.scheme.graph import Node
from composer.scheme.layout import Block, Layout, Projection, Target
from composer.scheme.stored import load_scheme
from composer.steps import spread_blocks as spread
from composer.training.blocks.tuner import BlockTuner
from composer.training.blocks.waves import Missing, split

GIVEN: dict[str, Any] = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.7],
    "random": 3,
    "calibration_size": 16,
    "block_levels": ["module", "sublayer"],
    "block": {"steps": 2, "batch_size": 4, "valid_size": 6},
}


class Inline:
    """Does shares one after the other, in this process, and remembers them."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.shares: list[list[spread.Share]] = []

    def run(
        self, work: Callable[[spread.Share], int], shares: Sequence[spread.Share], watch: Callable[[], None]
    ) -> list[int]:
        self.shares.append(list(shares))
        results = []
        for share in shares:
            results.append(work(share))
            watch()
        return results

    def close(self, *, at_once: bool = False) -> None:
        pass


class Seen(Progress):
    """What was told."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int, list[str]]] = []

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        details: list[str] = []
        self.bars.append((label, total, details))

        class Listening(Bar):
            def advance(self, detail: str = "") -> None:
                details.append(detail)

        yield Listening()


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    made = Inline(3)

    @contextmanager
    def executor_of(jobs: int, *_: Any, **__: Any) -> Iterator[Inline | None]:
        yield made if jobs > 1 else None

    monkeypatch.setattr(spread, "executor_of", executor_of)
    return made


@pytest.fixture
def recipe(t5_folder: Path, translation_data: Path, tmp_path: Path) -> Callable[..., Recipe]:
    def made(name: str, **given: Any) -> Recipe:
        common = {"model": str(t5_folder), "data": str(translation_data), "folder": str(tmp_path / name)}
        recipe = composer.load_recipe(given={**common, **GIVEN, **given}, file=False)
        composer.generate_config(recipe)
        composer.generate_scheme(recipe)
        composer.prune(recipe)
        return recipe

    return made


def blocks(recipe: Recipe) -> dict[str, str]:
    folder = recipe.folder / "modules" / "finetuned"
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("trainer", "levels"), [("least_squares", ["module", "sublayer", "layer"]), ("distill", ["sublayer"])]
)
def test_shares_give_the_bytes_of_the_whole(
    trainer: str, levels: list[str], inline: Inline, recipe: Callable[..., Recipe]
) -> None:
    given: dict[str, Any] = {"trainer": trainer, "block_levels": levels}
    alone, spread_over = recipe("one", **given), recipe("many", **given, jobs=2)
    first, seen = composer.finetune_blocks(alone), Seen()

    second = composer.finetune_blocks(spread_over, progress=seen)

    assert blocks(spread_over) == blocks(alone)
    assert first.summary["tuned"] == second.summary["tuned"] > 0
    assert first.summary["blocks"] == second.summary["blocks"]
    assert [len(shares) for shares in inline.shares] == [3] * len(levels)
    records = [Library(r.folder / "modules" / "finetuned").manifests() for r in (alone, spread_over)]
    (one,), (other,) = (list(record.values()) for record in records)
    assert (one["inputs"], one["addresses"]) == (other["inputs"], other["addresses"])
    # One bar for each wave; it advances once for each block, and says where.
    waves = [[address for share in shares for address in share.blocks.values()] for shares in inline.shares]
    for (label, total, details), wave in zip(seen.bars, waves, strict=True):
        assert label.startswith("wave ")
        assert total == len(details) == len(set(wave)) == len(wave)
        assert all("block." in detail for detail in details)
    assert not composer.finetune_blocks(spread_over).fresh
    # What is stored is left to nobody.
    library = Library(spread_over.folder / "modules" / "finetuned")
    gone = [a for a in library.addresses() if library.header(a).lineage["stage"] == "tuned"][::2]
    for address in gone:
        library.remove(address)
    inline.shares.clear()
    assert composer.finetune_blocks(spread_over).summary["tuned"] == len(gone)
    assert {a for shares in inline.shares for share in shares for a in share.blocks.values()} == set(gone)
    assert blocks(spread_over) == blocks(alone)


def test_a_process_of_a_launcher_makes_its_own_part_and_waits_for_the_others(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them, each of which may be the quicker one; see also tests/integration/test_launcher_joint.py."""
    given: dict[str, Any] = {"trainer": "least_squares", "block_levels": ["module", "sublayer"]}
    alone, shared = recipe("one", **given), recipe("many", **given)
    composer.finetune_blocks(alone)
    whole, library = blocks(alone), Library(shared.folder / "modules" / "finetuned")
    (manifest,) = Library(alone.folder / "modules" / "finetuned").manifests().values()
    scheme, addresses = load_scheme(alone.folder / "conf_prune.json"), manifest["addresses"]
    in_waves = [addresses[node.hash] for wave in scheme.waves() for node in wave]
    tune, parts = BlockTuner.tune, list[set[str]]()

    def here(tuner: BlockTuner, missing: Sequence[Missing], label: str) -> int:
        parts.append({block.address for block in missing})
        return tune(tuner, missing, label)

    def meanwhile(_: float) -> None:
        """The other process makes a block; it is not this one that does."""
        left = next(a for a in in_waves if a not in library)
        assert not any(left in part for part in parts)
        done = Library(alone.folder / "modules" / "finetuned").get(left)
        library.put(done.lineage, done.weights, done.masks)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(BlockTuner, "tune", here)
    monkeypatch.setattr(spread.time, "sleep", meanwhile)
    owned = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        for path in library.folder.glob("*"):
            path.unlink()
        parts.clear()
        composer.finetune_blocks(shared)
        owned.append(set().union(*parts))
        assert len(parts) == 2  # waves
        assert blocks(shared) == whole
        # Of a half that is stored already the other half is made by the same one.
        gone = sorted(owned[-1])[::2]
        for address in gone:
            library.remove(address)
        parts.clear()
        composer.finetune_blocks(shared)
        assert sorted(set().union(*parts)) == gone
    assert not owned[0] & owned[1]
    tuned = Library(alone.folder / "modules" / "finetuned")
    assert owned[0] | owned[1] == {a for a in whole if tuned.header(a).lineage["stage"] == "tuned"}


def test_a_worker_that_sees_other_data_makes_nothing(
    inline: Inline, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = recipe("place", trainer="least_squares", jobs=2)
    monkeypatch.setattr(spread, "tune_share", elsewhere(recipe=place.model_copy(update={"train_size": 7})))
    with pytest.raises(WorkerError, match=r"module .* a worker finds the address .* it sees other files, other data"):
        composer.finetune_blocks(place)


def elsewhere(**changes: Any) -> Callable[[spread.Share], int]:
    """A worker that sees another place than the one it is sent to."""
    do = spread.tune_share
    return lambda share: do(replace(share, place=replace(share.place, **changes)))


def test_blocks_that_never_appear_are_missed(
    inline: Inline, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = recipe("place", trainer="least_squares", jobs=2)
    monkeypatch.setattr(spread, "PATIENCE", 0.1)
    monkeypatch.setattr(spread, "tune_share", lambda share: 0)
    with pytest.raises(WorkerError, match=r"finetuned: lacks \d+ blocks that workers say they have stored; is it on"):
        composer.finetune_blocks(place)


def test_a_worker_that_cannot_enter_the_folder_says_so(
    inline: Inline, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = recipe("place", trainer="least_squares", jobs=2)
    monkeypatch.setattr(spread, "tune_share", elsewhere(cwd=str(tmp_path / "nowhere")))
    with pytest.raises(WorkerError, match=r"nowhere: a worker cannot enter it \(no such file or directory\); it must"):
        composer.finetune_blocks(place)


SIZES = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 4)), min_size=1, max_size=5)


@given(SIZES, st.integers(1, 4))
def test_shares_are_a_partition_that_keeps_variants_together(sizes: list[tuple[int, int]], count: int) -> None:
    targets = [
        Target(str(i), "linear", (Projection(str(i), n, 1, False, "encoder"),)) for i, (n, _) in enumerate(sizes)
    ]
    made = [Block("module", t.path, (t.path,), (t.path,), (t.path,), None, False, "encoder") for t in targets]
    layout = Layout("", tuple(targets), tuple(made))
    nodes = [Node(f"{i}/{j}", "module", str(i), {str(i): 0.5}, ()) for i, (_, k) in enumerate(sizes) for j in range(k)]
    nodes.sort(key=lambda node: node.hash[::-1])
    missing = [Missing(node, {}, node.hash) for node in nodes]

    shares = split(missing, layout, count)

    assert len(shares) == min(count, len(sizes))
    assert all(shares)
    assert sorted(one.address for share in shares for one in share) == sorted(one.address for one in missing)
    for share in shares:
        assert share == [one for one in missing if one in share]  # in their order
    paths = [{one.node.path for one in share} for share in shares]
    assert sum(map(len, paths)) == len(sizes)
    # Graham 1969: the last share to end does so at most 4/3 as late as in the best split.
    loads = [sum(layout.target(one.node.path).parameters for one in share) for share in shares]
    assert max(loads) <= 4 / 3 * best([n * k for n, k in sizes], count)


def best(works: Sequence[int], count: int) -> int:
    """The smallest possible largest load, by trying all splits."""
    return min(
        max(sum(n for n, place in zip(works, places, strict=True) if place == i) for i in range(count))
        for places in product(range(count), repeat=len(works))
    )
