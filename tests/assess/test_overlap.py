"""Overlap of what was removed, against sets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file

from composer.assess.masks.overlap import PICTURES, compare_masks, densities, picture
from composer.assess.masks.page import pixels
from composer.cli.app import call
from composer.errors import LibraryError, ModelError
from composer.library.store import Library
from composer.models.folder import BaseModel
from tests.conftest import Folder


def pruned(source: Path, folder: Path, seed: int, share: float = 0.5) -> Path:
    """A copy of a model with random zeros in its targets."""
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for target in BaseModel(source).layout.targets:
        for p in target.projections:
            weight = p.of(tensors[p.weight])
            weight[torch.rand(weight.shape, generator=generator) < share] = 0
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text("utf-8"), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return folder


def removed(folder: Path) -> dict[str, set[tuple[str, int, int]]]:
    """Target -> its removed weights, each by projection, row and column."""
    base = BaseModel(folder)
    tensors = load_file(folder / "model.safetensors")
    return {
        t.path: {
            (f"{p.path}{p.part}", *map(int, place))
            for p in t.projections
            for place in (p.of(tensors[p.weight]) == 0).nonzero()
        }
        for t in base.layout.targets
    }


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_jaccard_is_that_of_the_sets(name: str, model_folder: Folder, tmp_path: Path) -> None:
    source = model_folder(name)
    names = [str(pruned(source, tmp_path / f"m{i}", i, 0.3 + 0.2 * i)) for i in range(3)]
    content = compare_masks(names, tmp_path / "out")
    sets = {n: removed(Path(n)) for n in names}
    assert [(pair["a"], pair["b"]) for pair in content["pairs"]] == [
        (names[0], names[1]),
        (names[0], names[2]),
        (names[1], names[2]),
    ]
    for pair in content["pairs"]:
        a, b = sets[pair["a"]], sets[pair["b"]]
        for row in pair["rows"]:
            mine, yours = a[row["target"]], b[row["target"]]
            assert (row["removed_a"], row["removed_b"], row["both"]) == (len(mine), len(yours), len(mine & yours))
            assert row["jaccard"] == pytest.approx(len(mine & yours) / len(mine | yours))
        for line in pair["layers"]:
            own = [row["target"] for row in pair["rows"] if row["layer"] == line["layer"]]
            both = sum(len(a[t] & b[t]) for t in own)
            assert line["jaccard"] == pytest.approx(both / sum(len(a[t] | b[t]) for t in own))
        assert pair["jaccard_all"] == pytest.approx(sum(len(a[t] & b[t]) for t in a) / sum(len(a[t] | b[t]) for t in a))
        assert sum(row["picture"] is not None for row in pair["rows"]) == min(PICTURES, len(pair["rows"]))
    with (tmp_path / "out" / "masks.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3 * len(content["pairs"][0]["rows"])


def test_the_same_model_overlaps_wholly(t5_folder: Path, tmp_path: Path) -> None:
    folder = str(pruned(t5_folder, tmp_path / "m", 1))
    (pair,) = compare_masks([folder, folder], tmp_path / "out")["pairs"]
    assert pair["jaccard_all"] == 1
    assert 0 < pair["chance_all"] < 0.5


def test_what_cannot_be_compared(t5_folder: Path, bert_folder: Path, tmp_path: Path, model_folder: Folder) -> None:
    cut, other = pruned(t5_folder, tmp_path / "a", 0), pruned(bert_folder, tmp_path / "b", 0)
    library = tmp_path / "library"
    Library(library).put({"stage": "pruned", "node": "n"}, {}, {"a.weight": torch.tensor([[True, False]])})
    wrong = {
        (str(cut),): "got 1; needed: two or more",
        (str(cut), str(t5_folder)): "nothing is removed: none of its [0-9,]+ target weights is 0",
        (str(cut), str(other)): "has the target .* has not; needed: the same targets",
        (str(cut), str(tmp_path / "none")): "no such model folder",
        (str(tmp_path / "none"), str(library)): "none: no such model folder",
        (str(cut), str(library)): "is a model and .* a library; needed: models only, or libraries only",
    }
    for names, message in wrong.items():
        with pytest.raises(ModelError, match=message):
            compare_masks(names, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_libraries_are_compared_by_node(tmp_path: Path) -> None:
    keep = [torch.tensor([[True, False, True, False]]), torch.tensor([[True, False, False, True]])]
    for i, name in enumerate("ab"):
        library = Library(tmp_path / name)
        library.put({"stage": "pruned", "node": "1", "x": i}, {}, {"layer.0.o.weight": keep[i]})
        library.put({"stage": "pruned", "node": f"2{i}"}, {}, {"layer.0.i.weight": keep[i]})
    names = [str(tmp_path / name) for name in "ab"]
    (pair,) = compare_masks(names, tmp_path / "out")["pairs"]
    assert [row["target"] for row in pair["rows"]] == ["layer.0.o at 0.5"]
    assert pair["jaccard_all"] == pytest.approx(1 / 3)
    (tmp_path / "c").mkdir()
    Library(tmp_path / "c").put({"stage": "pruned", "node": "9"}, {}, {"z.weight": keep[0]})
    with pytest.raises(LibraryError, match="no variant in common"):
        compare_masks([names[0], str(tmp_path / "c")], tmp_path / "out")


@settings(max_examples=25)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.integers(1, 60).flatmap(lambda m: st.tuples(arrays(np.bool_, (n, m)), arrays(np.bool_, (n, m))))
    )
)
def test_a_picture_holds_how_much_is_removed(masks: tuple[Any, Any]) -> None:
    a, b = masks
    small = picture(a, b)
    parts = {name: densities(small[name]) for name in ("both", "only_a", "only_b")}
    for share in parts.values():
        assert share.shape == parts["both"].shape
        assert max(share.shape) <= 48
    if parts["both"].shape == a.shape:  # nothing was made smaller
        assert (parts["both"] == (a & b)).all()
        assert (parts["only_a"] == (a & ~b)).all()
    assert pixels(small).shape == (*parts["both"].shape, 4)


def test_the_command(
    t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [pruned(t5_folder, tmp_path / name, i).name for i, name in enumerate(("a", "b"))]
    assert call(["masks", *names]) == 0
    said = capsys.readouterr().out
    assert "Where they differ most" in said
    assert "masks/masks.html" in said
    made = {path.name for path in (tmp_path / "masks").iterdir()}
    assert {"masks.html", "masks.json", "masks.csv", "overlap.png", "overlap.svg", "overlap-masks.png"} <= made
    page = (tmp_path / "masks" / "masks.html").read_text("utf-8")
    assert "<script" not in page
    assert all(name in page for name in names)
    assert call(["masks", names[0], str(t5_folder)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {t5_folder}: nothing is removed")
