"""What a library holds, what is wrong with it, and what may go."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.errors import InputError, LibraryError
from composer.files.atomic import replacing
from composer.library import maintenance
from composer.library.catalogue import Catalogue
from composer.library.store import Library
from composer.scheme.building import build_scheme
from composer.scheme.graph import Scheme
from composer.scheme.layout import Block, Layout, Projection, Target

HEADS, WIDTH = 4, 8
DAY = 24 * 3600.0


def layout() -> Layout:
    """One attention sublayer: 4 heads in q, k, v, and its out-projection."""
    q, k, v, o = (Projection(f"a.{name}", WIDTH, WIDTH, False, "encoder") for name in "qkvo")
    targets = Target("a", "attention", (q, k, v), HEADS), Target("a.o", "linear", (o,))
    block = Block("sublayer", "a", ("a", "a.o"), ("a",), ("a",), None, False, "encoder")
    return Layout("toy", targets, (block,))


def scheme(*linear: float) -> Scheme:
    rates = [{"a": 0.3, "a.o": rate} for rate in linear]
    return build_scheme(rates, layout(), model="base", fingerprint="f" * 64)


class Run:
    """A folder with two libraries, filled as the stages fill them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pruned, self.tuned = (Library(folder / "modules" / name) for name in ("pruned", "finetuned"))
        self.addresses: dict[str, str] = {}

    def prune(self, plan: Scheme, criterion: str = "l1") -> None:
        for node in plan.at("module"):
            (rate,) = node.rates.values()
            lineage = {"stage": "pruned", "node": node.hash, "base": plan.fingerprint, "criterion": criterion}
            self.addresses[node.hash] = self.pruned.put(lineage, *weights(node.path, rate))
        self.record(self.pruned, plan, inputs={})

    def tune(self, plan: Scheme, steps: int = 1) -> None:
        below = {name: address for name, address in self.addresses.items() if address in self.pruned}
        for node in plan.at("sublayer"):
            start = [below[child] for child in node.children]
            lineage = {"stage": "tuned", "node": node.hash, "base": plan.fingerprint, "start": start, "steps": steps}
            parts = [weights(path, rate) for path, rate in node.rates.items()]
            row = {"level": node.level, "path": node.path, "rates": " ".join(f"{r:g}" for r in node.rates.values())}
            self.addresses[node.hash] = self.tuned.put(
                lineage, parts[0][0] | parts[1][0], parts[0][1] | parts[1][1], stats={"seconds": 1.5, "rows": [row]}
            )
        self.record(self.tuned, plan, inputs={"pruned": below})

    def record(self, library: Library, plan: Scheme, inputs: dict[str, Any]) -> None:
        made = {name: address for name, address in self.addresses.items() if address in library}
        library.write_manifest(plan.digest, {"inputs": inputs, "addresses": made})

    def catalogue(self) -> Catalogue:
        return Catalogue.open(self.folder)

    def address(self, stage: str, path: str) -> str:
        (found,) = [item.address for item in self.catalogue().items() if (item.stage, item.path) == (stage, path)]
        return found


def weights(path: str, rate: float) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and masks of a target of the layout, the first units removed."""
    names = [f"a.{name}.weight" for name in ("q", "k", "v")] if path == "a" else ["a.o.weight"]
    keep = torch.ones(WIDTH * WIDTH, dtype=torch.bool)
    keep[: round(rate * HEADS) * WIDTH * WIDTH // HEADS if path == "a" else round(rate * WIDTH * WIDTH)] = False
    keep = keep.reshape(WIDTH, WIDTH)
    return {name: keep.float() for name in names}, {name: keep.clone() for name in names}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made, plan = Run(tmp_path), scheme(0.5)
    made.prune(plan)
    made.tune(plan)
    return made


def listed(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    return [(i.library.name, i.stage, i.level, i.path, i.rates, i.seconds) for i in catalogue.items()]


def test_items_tell_level_path_and_rates(run: Run) -> None:
    scheme(0.5).save(run.folder / "conf_prune.json")
    assert listed(run.catalogue()) == [
        ("pruned", "pruned", "module", "a", (0.3,), None),
        ("pruned", "pruned", "module", "a.o", (0.5,), None),
        ("finetuned", "tuned", "sublayer", "a", (0.3, 0.5), 1.5),
    ]


def test_without_the_scheme_masks_and_histories_are_asked(run: Run) -> None:
    assert listed(run.catalogue()) == [
        ("pruned", "pruned", "module", "a.o", (0.5,), None),
        ("pruned", "pruned", None, "a", (0.25,), None),  # 1 of 4 heads: 0.3 was asked
        ("finetuned", "tuned", "sublayer", "a", (0.3, 0.5), 1.5),
    ]


def test_items_tell_bytes_and_users(run: Run) -> None:
    run.prune(scheme(0.5, 0.7))
    one, two = sorted(f"scheme-{scheme(*rates).digest[:16]}.json" for rates in ([0.5], [0.5, 0.7]))
    items = {(item.library.name, item.path, item.rates[-1]): item for item in run.catalogue().items()}
    assert set(items["pruned", "a.o", 0.5].schemes) == {one, two}
    assert items["pruned", "a.o", 0.7031].schemes == (f"scheme-{scheme(0.5, 0.7).digest[:16]}.json",)
    assert items["finetuned", "a", 0.5].schemes == (f"scheme-{scheme(0.5).digest[:16]}.json",)
    for item in items.values():
        files = [path for path in item.library.iterdir() if path.name.startswith(item.address)]
        assert item.bytes == sum(path.stat().st_size for path in files)
        assert len(files) == (3 if item.stage == "tuned" else 2)


def test_a_scheme_that_cannot_be_read_is_done_without(run: Run) -> None:
    (run.folder / "conf_prune.json").write_text("{")
    assert len(listed(run.catalogue())) == 3


def test_a_tuned_block_without_scheme_and_history_has_no_name(run: Run) -> None:
    address = run.address("tuned", "a")
    (run.tuned.folder / f"{address}.stats.json").unlink()
    assert listed(run.catalogue())[-1] == ("finetuned", "tuned", None, None, (), None)


def test_a_damaged_block_does_not_spoil_the_list(run: Run) -> None:
    address = run.address("pruned", "a")
    run.pruned.path(address).write_bytes(b"\xff" * 20)
    damaged = run.catalogue().items()[-2]  # without a level it comes last of its library
    assert (damaged.address, damaged.stage, damaged.level, damaged.rates) == (address, "damaged", None, ())


def test_which_libraries(run: Run, tmp_path: Path) -> None:
    assert [library.folder.name for library in run.catalogue().libraries] == ["pruned", "finetuned"]
    one = Catalogue.open(Path("nowhere"), [run.tuned.folder])
    assert [item.stage for item in one.items()] == ["tuned"]
    with pytest.raises(LibraryError, match=r"nowhere/modules: no library here; `compose prune` makes one"):
        Catalogue.open(tmp_path / "nowhere")
    with pytest.raises(LibraryError, match=r"x: no such folder; a library is needed here"):
        Catalogue.open(tmp_path, [tmp_path / "x"])


def test_a_block_is_found_by_its_first_digits(run: Run) -> None:
    catalogue = run.catalogue()
    every = [item.address for item in catalogue.items()]
    for address in every:
        assert catalogue.find(address)[1] == address
        assert catalogue.find(address[:10].upper())[1] == address
    with pytest.raises(LibraryError, match=r"ADDRESS: '' begins 3 addresses: .*; give more digits"):
        catalogue.find("")
    with pytest.raises(LibraryError, match=r"ADDRESS: no block in .*pruned, .*finetuned has an address .* 'xyz'"):
        catalogue.find("xyz")


def test_a_block_is_described_down_to_the_base_model(run: Run) -> None:
    address = run.address("tuned", "a")
    got = run.catalogue().describe(address[:8])
    assert (got["address"], got["stage"], got["lineage"]["steps"]) == (address, "tuned", 1)
    assert [(below["path"], below["stage"], below["base"]) for below in got["made_from"]] == [
        ("a", "pruned", "f" * 64),
        ("a.o", "pruned", "f" * 64),
    ]
    assert [below["address"] for below in got["made_from"]] == got["lineage"]["start"]
    assert [(m["parameter"], m["kept"], m["weights"]) for m in got["masks"]] == [
        ("a.k.weight", 48, 64),
        ("a.o.weight", 32, 64),
        ("a.q.weight", 48, 64),
        ("a.v.weight", 48, 64),
    ]
    assert got["masks"][0]["rate"] == 0.25
    assert got["tensors"][0] == {"name": "a.k.weight", "dtype": "F32", "shape": [WIDTH, WIDTH]}
    assert len(got["tensors"]) == 4
    # The library of pruned variants beside it is read even when only the other one is asked for.
    assert Catalogue.open(run.folder, [run.tuned.folder]).describe(address)["made_from"] == got["made_from"]


def test_an_ancestor_that_is_gone_is_told(run: Run) -> None:
    gone = run.address("pruned", "a.o")
    run.pruned.remove(gone)
    below = run.catalogue().describe(run.address("tuned", "a"))["made_from"]
    assert below[1] == {"address": gone, "library": None, "start": []}


def test_a_damaged_block_is_not_described(run: Run) -> None:
    address = run.address("tuned", "a")
    data = run.tuned.path(address).read_bytes()
    run.tuned.path(address).write_bytes(data[:-1])
    with pytest.raises(LibraryError, match=rf"{address}.safetensors: damaged"):
        run.catalogue().describe(address)


def test_nothing_is_wrong_with_whole_libraries(run: Run) -> None:
    assert maintenance.problems(run.catalogue()) == []


def test_everything_that_is_wrong_is_named_at_once(run: Run) -> None:
    damaged, missing, moved = run.address("pruned", "a"), run.address("pruned", "a.o"), run.address("tuned", "a")
    run.pruned.path(damaged).write_bytes(b"half")
    run.pruned.remove(missing)
    for path in run.tuned.files(moved):
        path.rename(path.with_name(path.name.replace(moved, "0" * 40)))
    record = next(run.pruned.folder.glob("scheme-*.json")).name
    assert maintenance.problems(run.catalogue()) == [
        f"{run.pruned.path(damaged)}: damaged: its sha256 is not the one in {damaged}.sha256; "
        "delete the block and run the command that made it again",
        f"{run.tuned.path('0' * 40)}: misnamed: the address of its lineage is {moved}; delete the block",
        f"{run.pruned.path(missing)}: missing, but {record} names it; run the command that made it again",
        f"{run.tuned.path(moved)}: missing, but {record} names it; run the command that made it again",
    ]
    (run.tuned.folder / record).write_text("{")
    assert maintenance.problems(run.catalogue())[-1].startswith(
        f"{run.tuned.folder / record}: line 1, column 2: not valid JSON"
    )


def test_sizes(run: Run) -> None:
    run.prune(scheme(0.5, 0.7))
    run.tuned.put({"stage": "tuned", "node": "x"}, {"a": torch.ones(100)}, {})
    sizes = maintenance.sizes(run.catalogue())
    items = run.catalogue().items()

    pruned, tuned = sizes["libraries"]
    assert (pruned["blocks"], pruned["unused"]) == (3, {"blocks": 0, "bytes": 0})
    assert pruned["on_disk"] == sum(path.stat().st_size for path in run.pruned.folder.iterdir())
    assert (tuned["blocks"], tuned["unused"]["blocks"]) == (2, 1)
    assert tuned["unused"]["bytes"] > 400
    assert sum(row["bytes"] for row in sizes["libraries"]) == sum(item.bytes for item in items)

    rows = {row["scheme"]: (row["blocks"], row["alone"]["blocks"]) for row in sizes["schemes"]}
    assert rows == {
        f"scheme-{scheme(0.5).digest[:16]}.json": (3, 1),
        f"scheme-{scheme(0.5, 0.7).digest[:16]}.json": (3, 1),
    }


def later(hours: float = 25) -> float:
    return time.time() + hours * 3600


def paths(run: Run) -> set[str]:
    return {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}


def test_what_a_record_names_is_never_unused(run: Run) -> None:
    found = maintenance.unused(run.catalogue(), now=later())
    assert (found.blocks, found.leftovers, found.young, found.bytes) == ([], [], 0, 0)


def test_what_no_record_names_goes_with_all_its_files(run: Run) -> None:
    before = paths(run)
    run.tune(scheme(0.5), steps=2)  # the record is replaced: the blocks of one step are in none
    found = maintenance.unused(run.catalogue(), now=later())
    assert [(item.stage, item.path) for item in found.blocks] == [("tuned", "a")]
    freed = sum(path.stat().st_size for path in run.tuned.files(found.blocks[0].address))
    assert found.bytes == freed > 0
    assert before < paths(run)
    maintenance.discard(found)
    assert {name for name in before if found.blocks[0].address not in name} < paths(run)
    assert not [name for name in paths(run) if found.blocks[0].address in name]
    assert maintenance.problems(run.catalogue()) == []


def test_pruned_blocks_that_tuned_ones_started_from_stay(run: Run) -> None:
    old = run.address("pruned", "a.o")
    plan = scheme(0.5)
    other = Run(run.folder)
    other.prune(plan, criterion="obs")  # the record of the pruned library no longer names the old ones
    for catalogue in (run.catalogue(), Catalogue.open(run.folder, [run.pruned.folder])):
        assert maintenance.unused(catalogue, now=later()).blocks == []
    next(run.tuned.folder.glob("scheme-*.json")).unlink()
    assert old in {item.address for item in maintenance.unused(run.catalogue(), now=later()).blocks}


def test_scores_stay_as_long_as_a_block_that_was_pruned_by_them(run: Run) -> None:
    for criterion in ("l1", "obs"):
        lineage = {"stage": "scores", "target": "a.o", "base": "f" * 64, "criterion": criterion}
        run.pruned.put(lineage, {"scores": torch.ones(3)}, {})
    items = {(item.stage, item.path, item.schemes) for item in run.catalogue().items() if item.stage == "scores"}
    assert items == {("scores", "a.o", (f"scheme-{scheme(0.5).digest[:16]}.json",)), ("scores", "a.o", ())}
    (gone,) = maintenance.unused(run.catalogue(), now=later()).blocks
    assert run.pruned.header(gone.address).lineage["criterion"] == "obs"
    assert run.catalogue().describe(gone.address)["made_from"] == []


def test_the_weights_of_a_sweep_stay_as_long_as_all_blocks_of_the_model(run: Run) -> None:
    plan = scheme(0.5)
    plan.save(run.folder / "conf_prune.json")
    swept, block = Library(run.folder / "modules" / "swept"), run.address("tuned", "a")
    for blocks in ([block], [block, "0" * 40], []):
        lineage = {"stage": "swept", "configuration": plan.roots[0], "blocks": dict(enumerate(blocks)), "base": "f"}
        swept.put(lineage, *weights("a.o", 0.5))
    catalogue = run.catalogue()
    items = [item for item in catalogue.items() if item.library == swept.folder]
    assert {(item.level, item.path, item.rates) for item in items} == {("model", "", (0.3, 0.5))}
    gone = maintenance.unused(catalogue, now=later()).blocks
    assert {len(swept.header(item.address).lineage["blocks"]) for item in gone} == {0, 2}
    (kept,) = {item.address for item in items} - {item.address for item in gone}
    assert [below["address"] for below in catalogue.describe(kept)["made_from"]] == [block]


def test_a_scheme_is_given_up_with_its_record(run: Run) -> None:
    run.prune(scheme(0.5, 0.7))
    run.tune(scheme(0.5, 0.7))
    for library in (run.pruned, run.tuned):
        (library.folder / f"scheme-{scheme(0.5, 0.7).digest[:16]}.json").unlink()
    gone = maintenance.unused(run.catalogue(), now=later()).blocks
    assert [(item.stage, item.path, item.rates[-1]) for item in gone] == [
        ("pruned", "a.o", 0.7031),
        ("tuned", "a", 0.7),
    ]


def test_young_blocks_stay(run: Run) -> None:
    address = run.tuned.put({"stage": "tuned", "node": "x"}, {"a": torch.ones(3)}, {})
    for hours, now, young in [(24, time.time(), 1), (24, later(23), 1), (1, later(2), 0), (24, later(25), 0)]:
        found = maintenance.unused(run.catalogue(), hours, now=now)
        assert (found.young, [item.address for item in found.blocks]) == (young, [] if young else [address])
    assert maintenance.unused(run.catalogue(), 0, now=later(0.001)).young == 0


def test_a_block_that_somebody_begins_to_rely_on_stays(run: Run) -> None:
    address = run.tuned.put({"stage": "tuned", "node": "x"}, {"a": torch.ones(3)}, {})
    found = maintenance.unused(run.catalogue(), now=later())
    found.seen = time.time() - 1
    run.tuned.verify(address)  # as a run does with a block that it finds
    maintenance.discard(found)
    run.tuned.verify(address)


def test_what_killed_writers_left_goes(run: Run) -> None:
    left = [run.pruned.folder / name for name in (".a.safetensors.x.tmp", f"{'a' * 40}.sha256", "b.stats.json")]
    for path in left:
        path.write_bytes(b"left")
    with replacing(run.pruned.folder / "c.safetensors") as living:
        living.write_bytes(b"so far")
        assert maintenance.unused(run.catalogue()).leftovers == left[:1]  # the others are young
        found = maintenance.unused(run.catalogue(), now=later())
        assert sorted(found.leftovers) == sorted(left)
        assert found.bytes == 12
        maintenance.discard(found)
        assert living.exists()
    assert not any(path.exists() for path in left)


def test_nothing_goes_when_a_record_cannot_be_read(run: Run) -> None:
    run.tuned.put({"stage": "tuned", "node": "x"}, {"a": torch.ones(3)}, {})
    next(run.pruned.folder.glob("scheme-*.json")).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        maintenance.unused(run.catalogue(), now=later())


def test_other_folders_beside_are_no_libraries(run: Run) -> None:
    (run.folder / "modules" / "notes").mkdir()
    (run.folder / "modules" / "notes" / "a.json").write_text(json.dumps({"x": run.address("tuned", "a")}))
    (run.folder / "modules" / "file").write_text("")
    os.mkdir(run.folder / "modules" / "empty")
    assert {users for item in run.catalogue().items() for users in item.schemes} == {
        f"scheme-{scheme(0.5).digest[:16]}.json"
    }
