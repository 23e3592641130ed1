"""From a configuration said in full to a composed model: exact counts and zeros, whatever shape and criterion."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import composer
from composer.errors import ConfigError, RecipeError
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.pruning.criteria import CRITERIA
from composer.recipe import Recipe
from composer.scheme.generate import generate
from composer.scheme.shapes import KINDS, parse_shape
from composer.workspace import Workspace
from tests.reference import closed_form, wanda

Folder = Callable[..., Path]
Entries = dict[str, Any]

SHAPES: dict[str, Entries] = {
    "gated": {
        "encoder.block.0.layer.1.*.wi_0": {"rate": 0.5, "granularity": "neuron", "criterion": "obs"},
        "encoder.block.1.layer.1.*.wi_0": {"rate": 0.25, "granularity": "neuron", "criterion": "taylor"},
        "encoder.block.0.layer.0.SelfAttention": {"rate": 0.5, "granularity": "2:4", "criterion": "wanda"},
        "encoder.block.1.layer.0.SelfAttention": {"rate": 0.5, "criterion": "taylor"},
        "encoder.block.0.layer.0.SelfAttention.o": {"rate": 0.5, "granularity": "4:8", "criterion": "sparsegpt"},
        "encoder.block.1.layer.0.SelfAttention.o": {"rate": 0.3, "criterion": "sparsegpt"},
        "decoder.block.0.layer.0.SelfAttention": {"rate": 0.3, "granularity": "per-row"},
        "decoder.block.0.layer.0.SelfAttention.o": {"rate": 0.5, "granularity": "column", "criterion": "l2"},
        "decoder.block.0.layer.2.*.wi_?": {"rate": 0.25, "granularity": "row", "criterion": "random"},
        "decoder.block.0.layer.2.*.wo": {"rate": 0.5, "granularity": "4x8", "criterion": "taylor"},
    },
    "distilbert": {
        "*.layer.0.ffn.lin1": {"rate": 0.3, "granularity": "neuron", "criterion": "obs"},
        "*.layer.1.ffn.lin1": {"rate": 0.5, "granularity": "neuron"},
        "*.layer.0.attention": {"rate": 0.25, "criterion": "obs"},
        "*.layer.0.attention.out_lin": {"rate": 0.35, "criterion": "wanda"},
        "*.layer.1.attention": {"rate": 0.5, "criterion": "random"},
    },
}


class Place:
    """A tiny base model, its data and a folder to work in."""

    def __init__(self, model: Path, data: Path, folder: Path, **changes: Any) -> None:
        lengths = {"max_source_length": 32, "max_target_length": 12, "calibration_size": 12}
        given = {"model": str(model), "data": str(data), "folder": str(folder), "trainer": "least_squares"}
        block = {"batch_size": 8, "valid_size": 4}
        self.recipe: Recipe = composer.load_recipe(given=given | lengths | {"block": block} | changes, file=False)
        self.base, self.folder = BaseModel(model), self.recipe.folder

    def configure(self, *configurations: Entries) -> None:
        (self.folder / "conf.json").write_text(json.dumps({"configurations": list(configurations)}))

    def prune(self, *configurations: Entries) -> dict[str, dict[str, Tensor]]:
        """Plan and prune; weights of each configuration, composed from the pruned library."""
        self.configure(*configurations)
        composer.generate_scheme(self.recipe)
        composer.prune(self.recipe)
        return {str(i): self.build(i, "pruned") for i in range(len(configurations))}

    def build(self, i: int, library: str) -> dict[str, Tensor]:
        folder = self.folder / "built" / library
        composer.build_model(self.recipe, i, modules=self.folder / "modules" / library, output=folder / str(i))
        return BaseModel(folder / str(i)).load().state_dict()


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    model_folder: Folder,
    translation_data: Path,
    classification_data: Path,
    tmp_path: Path,
) -> Callable[..., Place]:
    def make(name: str, model: Path | None = None, **changes: Any) -> Place:
        data = classification_data if name.endswith("bert") else translation_data
        return Place(model or model_folder(name), data, **{"folder": tmp_path, **changes})

    return make


def zeros(state: dict[str, Tensor], name: str) -> Tensor:
    return state[f"{name}.weight"] == 0


@pytest.mark.parametrize("name", SHAPES)
def test_counts_are_the_scheme_s_after_pruning_tuning_and_composing(place: Callable[..., Place], name: str) -> None:
    at = place(name)
    pruned = at.prune(SHAPES[name])["0"]
    composer.finetune_blocks(at.recipe)
    tuned = at.build(0, "finetuned")

    layout = at.base.layout
    scheme = json.loads((at.folder / "conf_prune.json").read_text())
    wanted = json.loads((at.folder / "built" / "pruned" / "0" / "composer.json").read_text())
    assert wanted["rates"].keys() == scheme["modules"].keys()
    removed = sum(int(zeros(pruned, p.path).sum()) for t in layout.targets for p in t.projections)
    summary = composer.generate_scheme(at.recipe).summary
    assert removed == pytest.approx(summary["sparsity"][0] * layout.parameters(layout.paths), abs=1e-6)
    for state in (pruned, tuned):
        for target in layout.targets:
            for p in target.projections:
                assert (zeros(state, p.path) == zeros(pruned, p.path)).all()
    assert any(not torch.equal(pruned[key], tuned[key]) for key in pruned)


def test_shapes_are_what_their_names_say(place: Callable[..., Place]) -> None:
    state = place("gated").prune(SHAPES["gated"])["0"]
    first, second = "encoder.block.0.layer", "encoder.block.1.layer"
    for name in "qkv":
        assert (zeros(state, f"{first}.0.SelfAttention.{name}").reshape(16, 3, 4).sum(2) == 2).all()
        assert zeros(state, f"{second}.0.SelfAttention.{name}").all(1).sum() == 8
        rows = zeros(state, f"decoder.block.0.layer.0.SelfAttention.{name}").sum(1)
        assert rows.sum() == round(0.3 * 192)
        assert rows.max() - rows.min() <= 1
    assert (zeros(state, f"{first}.0.SelfAttention.o").reshape(12, 2, 8).sum(2) == 4).all()
    assert zeros(state, "decoder.block.0.layer.0.SelfAttention.o").all(0).sum() == 8
    for name in ("wi_0", "wi_1"):
        assert zeros(state, f"decoder.block.0.layer.2.DenseReluDense.{name}").all(1).sum() == 6
    blocks = zeros(state, "decoder.block.0.layer.2.DenseReluDense.wo").reshape(3, 4, 3, 8)
    assert sorted(blocks.sum((1, 3)).flatten().tolist()) == [0] * 5 + [32] * 4


@pytest.mark.parametrize(
    ("name", "first", "second", "gate"),
    [
        ("gated", "encoder.block.0.layer.1.DenseReluDense.wi_0", "wo", "wi_1"),
        ("distilbert", "distilbert.transformer.layer.0.ffn.lin1", "lin2", None),
    ],
)
def test_a_model_without_neurons_is_the_base_model_with_their_output_silenced(
    place: Callable[..., Place], name: str, first: str, second: str, gate: str | None
) -> None:
    at = place(name)
    at.prune({first: {"rate": 0.5, "granularity": "neuron"}})
    pruned, base = BaseModel(at.folder / "built" / "pruned" / "0").load(), at.base.load()
    parent = first.rpartition(".")[0]
    gone = (pruned.get_parameter(f"{first}.weight") == 0).all(1)
    assert gone.sum() == 12
    assert torch.equal((pruned.get_parameter(f"{parent}.{second}.weight") == 0).all(0), gone)
    if gate:
        assert torch.equal((pruned.get_parameter(f"{parent}.{gate}.weight") == 0).all(1), gone)
    else:
        assert (pruned.get_parameter(f"{first}.bias")[gone] == 0).all()

    def silence(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * ~gone,)

    base.get_submodule(f"{parent}.{second}").register_forward_pre_hook(silence)
    batch: dict[str, Any] = {"input_ids": torch.tensor([[7, 8, 9, 10, 1]])}
    if name == "gated":
        batch["decoder_input_ids"] = torch.tensor([[0, 9, 8]])
    with torch.no_grad():
        torch.testing.assert_close(pruned(**batch).logits, base(**batch).logits)


@pytest.mark.parametrize(
    ("name", "feed_forwards", "attentions"),
    [
        ("distilbert", "*.ffn.*", "*.attention"),
        ("gpt2", "*.mlp.*", "*.attn"),  # stored turned, query, key and value in one
        ("llama", "*.mlp.*", "*.self_attn"),  # fewer keys and values than queries
    ],
)
def test_one_threshold_gives_the_masks_of_torch_and_says_the_rates(
    place: Callable[..., Place], name: str, feed_forwards: str, attentions: str
) -> None:
    at = place(name)
    spec = {"rate": 0.4, "granularity": "global"}
    state = at.prune({"*": spec}, {feed_forwards: spec, attentions: 0.25})
    model = at.base.load()
    modules = {p.path: model.get_submodule(p.path) for t in at.base.layout.targets for p in t.projections}
    torch_prune.global_unstructured(
        [(module, "weight") for module in modules.values()], pruning_method=torch_prune.L1Unstructured, amount=0.4
    )
    for path, module in modules.items():
        assert torch.equal(zeros(state["0"], path), ~module.weight_mask.bool()), path

    told = composer.generate_scheme(at.recipe).summary["global"]
    assert {row["configuration"] for row in told} == {0, 1}
    for row in told:
        target = at.base.layout.target(row["path"])
        paths = {p.path for p in target.projections}
        gone = sum(int(zeros(state[str(row["configuration"])], path).sum()) for path in paths)
        assert round(row["rate"] * target.parameters) == gone
    assert len({row["rate"] for row in told}) > 3


@pytest.mark.parametrize(
    ("lost", "kept"), [("layer.0.ffn.lin1", "layer.1.attention.out_lin"), ("layer.0.attention", "layer.1.ffn.lin2")]
)
def test_under_one_threshold_a_target_may_lose_everything_or_keep_everything(
    place: Callable[..., Place], distilbert_folder: Path, tmp_path: Path, lost: str, kept: str
) -> None:
    base = BaseModel(distilbert_folder)
    model, paths = base.load(), {path: f"distilbert.transformer.{path}" for path in (lost, kept)}
    projections = {path: [p.path for p in base.layout.target(whole).projections] for path, whole in paths.items()}
    with torch.no_grad():
        for path, factor in ((lost, 1e-6), (kept, 1e6)):
            for name in projections[path]:
                model.get_parameter(f"{name}.weight").mul_(factor)
    base.save(model, tmp_path / "scaled")
    at = place("distilbert", model=tmp_path / "scaled")

    pruned = at.prune({"*": {"rate": 0.4, "granularity": "global"}})["0"]
    composer.finetune_blocks(at.recipe)
    tuned = at.build(0, "finetuned")

    rates = {row["path"]: row["rate"] for row in composer.generate_scheme(at.recipe).summary["global"]}
    assert rates.pop(paths[lost]) == 1.0
    assert rates.keys() == {*at.base.layout.paths} - {*paths.values()}
    assert all(0 < rate < 1 for rate in rates.values())
    dense = model.state_dict()
    for state in (pruned, tuned):
        assert all(zeros(state, name).all() for name in projections[lost])
        assert not any(zeros(state, name).any() for name in projections[kept])
        assert all(value.isfinite().all() for value in state.values())
        gone = sum(int(zeros(state, p.path).sum()) for t in at.base.layout.targets for p in t.projections)
        assert gone == round(0.4 * at.base.layout.parameters(at.base.layout.paths))
    assert all(torch.equal(pruned[f"{name}.weight"], dense[f"{name}.weight"]) for name in projections[kept])
    assert any(not torch.equal(pruned[key], tuned[key]) for key in pruned)


LINEARS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
PUBLISHED = {
    "unstructured": lambda scores: wanda.unstructured(scores, 0.5),
    "2:4": lambda scores: wanda.semi_structured(scores, 2, 4),
}


@pytest.mark.parametrize("granularity", PUBLISHED)
def test_wanda_layer_by_layer_is_as_published(place: Callable[..., Place], granularity: str) -> None:
    at = place("bert", criterion="wanda", calibration="sequential", calibration_size=24)
    pruned = at.prune({"*": {"rate": 0.5, "granularity": granularity}})["0"]
    samples = [
        {"input_ids": torch.tensor([feature["input_ids"]])}
        for feature in Workspace(at.recipe).examples("train").features
    ]
    layers = [
        [f"bert.encoder.layer.{i}.{name}" for name in (*LINEARS, "intermediate.dense", "output.dense")]
        for i in range(2)
    ]

    removed = wanda.prune_layers(at.base.load(), layers, samples, PUBLISHED[granularity])

    assert len(removed) == 12
    for name, gone in removed.items():
        assert torch.equal(zeros(pruned, name), gone), name


def test_layer_by_layer_differs_from_base_inputs_only_behind_the_first_layer(
    place: Callable[..., Place], tmp_path: Path
) -> None:
    entries = {"*": {"rate": 0.5, "granularity": "unstructured", "criterion": "sparsegpt"}}
    base = place("distilbert").prune(entries)["0"]
    (tmp_path / "other").mkdir()
    at = place("distilbert", calibration="sequential", folder=tmp_path / "other")
    other = at.prune(entries)["0"]
    names = [p.path for t in at.base.layout.targets for p in t.projections]
    same = {name for name in names if torch.equal(base[f"{name}.weight"], other[f"{name}.weight"])}
    assert same == {name for name in names if ".layer.0." in name}
    # Stored variants are taken into the model as new ones are: one that was lost comes out the same.
    library = at.folder / "modules" / "pruned"
    before = {path.name: path.read_bytes() for path in library.glob("*.safetensors")}
    for name in sorted(before)[::2]:
        (library / name).unlink()
    composer.prune(at.recipe)
    assert {path.name: path.read_bytes() for path in library.glob("*.safetensors")} == before


def test_what_cannot_be_calibrated_layer_by_layer_is_refused(place: Callable[..., Place]) -> None:
    at = place("distilbert", calibration="sequential")
    problems = {
        r"no criterion looks at inputs \(l1\); allowed: base": [{"*": 0.5}],
        "criterion 'taylor' looks at the base model's gradients": [
            {"*.lin1": 0.5, "*.lin2": {"rate": 0.5, "criterion": "taylor"}}
        ],
        "got a scheme of 2 configurations, which share variants": [
            {"*.lin1": {"rate": rate, "criterion": "wanda"}} for rate in (0.5, 0.25)
        ],
    }
    for i, (problem, configurations) in enumerate(problems.items()):
        at.configure(*configurations)
        composer.generate_scheme(at.recipe, force=True)
        with pytest.raises(RecipeError, match=f"--calibration sequential: .*{problem}"):
            composer.prune(at.recipe, output=at.folder / str(i))


SUMMED = {"l1", "l2", "movement", "random", "taylor"}
"""Criteria of single weights that are summed over any unit."""
TOGETHER = {
    "unstructured": SUMMED | {"wanda", "sparsegpt", "obs"},
    "per-row": SUMMED | {"wanda"},
    "global": {"global_l1"},
    "2:4": SUMMED | {"wanda", "sparsegpt"},
    "row": SUMMED,
    "column": SUMMED,
    "2x2": SUMMED,
    "head": SUMMED | {"obs", "obs_loss"},
    "stack-head": SUMMED | {"obs", "obs_loss"},
    "neuron": SUMMED | {"obs", "obs_loss"},
}
"""Granularity -> the criteria that make sense with it, and no others."""
PAIRS = [(criterion, granularity) for granularity in TOGETHER for criterion in CRITERIA.names()]


def test_all_pairs_of_criteria_and_granularities_are_looked_at() -> None:
    assert {parse_shape(granularity).kind for granularity in TOGETHER} == {*KINDS}
    for criterion, granularity in PAIRS:
        fits = parse_shape(granularity).scored.kind in CRITERIA.get(criterion).shapes
        assert fits == (criterion in TOGETHER[granularity]), (criterion, granularity)


@pytest.mark.parametrize(("criterion", "granularity"), [(c, g) for c, g in PAIRS if c not in TOGETHER[g]])
def test_a_criterion_that_makes_no_sense_with_a_granularity_is_refused_by_name(
    place: Callable[..., Place], criterion: str, granularity: str
) -> None:
    at = place("distilbert")
    target = {"head": "*.attention", "stack-head": "*.attention", "neuron": "*.lin1"}.get(granularity, "*.out_lin")
    at.configure({target: {"rate": 0.5, "granularity": granularity, "criterion": criterion}})
    line = f"criterion '{criterion}' makes no sense with granularity '{granularity}'; allowed with it: (.*); with "
    with pytest.raises(ConfigError, match=line) as caught:
        composer.generate_scheme(at.recipe)
    (said,) = re.findall(line, str(caught.value))
    assert set(said.split(", ")) == TOGETHER[granularity]


def test_the_run_s_criterion_is_held_to_the_granularities_of_the_rest(place: Callable[..., Place]) -> None:
    at = place("distilbert", criterion="wanda")
    at.configure({"*": 0.5})
    composer.generate_scheme(at.recipe)
    with pytest.raises(
        ConfigError, match=r"layer.0.attention and 1 more: criterion 'wanda' makes no sense with .* 'head'"
    ):
        composer.prune(at.recipe)
    at.configure({"*": 0.5, "*.attention": {"rate": 0.5, "criterion": "wandaa"}})
    with pytest.raises(ConfigError, match=r"unknown criterion 'wandaa'; allowed: .*did you mean 'wanda'"):
        composer.generate_scheme(at.recipe, force=True)


def test_variants_with_criteria_of_their_own_are_stored_once_and_apart(place: Callable[..., Place]) -> None:
    at = place("distilbert")
    own = {"rate": 0.5, "criterion": "random"}
    at.prune({"*.lin1": 0.5}, {"*.lin1": own}, {"*.lin1": own, "*.lin2": {"rate": 0.5, "criterion": "l1"}})
    library = Library(at.folder / "modules" / "pruned")
    lineages = [library.get(address).lineage["criterion"] for address in library.addresses()]
    assert sorted(map(str, lineages)) == ["{'name': 'l1'}"] * 4 + ["{'name': 'random', 'seed': 0}"] * 2


def test_configurations_are_made_in_a_shape(place: Callable[..., Place]) -> None:
    at = place("gated", granularity="neuron", attention=[0.25], linear=[0.5])
    made = json.loads(composer.generate_config(at.recipe).output.read_text())["configurations"]
    neurons = {"rate": 0.5, "granularity": "neuron"}
    for path, said in made[0].items():
        assert said == (0.25 if path.endswith("Attention") else 0.5 if path.endswith(".o") else neurons)
    assert len(made[0]) == 4 * 2 + 3
    with pytest.raises(ConfigError, match=r"--granularity: .*SelfAttention.o: .*5 does not divide .*, 12; got 0.5"):
        generate(at.base.layout, linear=[0.5], granularity="5x1")
    with pytest.raises(ConfigError, match=r"keeps 2 of 4: the rate must be 0.5; got 0.3"):
        generate(at.base.layout, linear=[0.3], granularity="2:4")
    with pytest.raises(ConfigError, match="--granularity: got 'head', a shape of attention targets; allowed: "):
        generate(at.base.layout, granularity="head")


@pytest.mark.parametrize("granularity", ["row", "unstructured"])
def test_an_out_projection_is_refitted_on_what_it_reads_where_other_than_heads_went(
    place: Callable[..., Place], granularity: str
) -> None:
    at = place("gated", calibration_size=24, block_levels=["sublayer"])
    attention = "encoder.block.0.layer.0.SelfAttention"
    at.prune({attention: {"rate": 0.5, "granularity": granularity}, f"{attention}.o": 0.5})
    composer.finetune_blocks(at.recipe)
    tuned = at.build(0, "finetuned")[f"{attention}.o.weight"]

    def seen(model: nn.Module) -> tuple[Tensor, Tensor]:
        """What the projection reads and gives, over all sentences."""
        rows: list[tuple[Tensor, Tensor]] = []
        hook = lambda _, read, given: rows.append((read[0].flatten(0, 1), given.flatten(0, 1)))  # noqa: E731
        model.get_submodule(f"{attention}.o").register_forward_hook(hook)
        for feature in Workspace(at.recipe).examples("train").features:
            model.get_encoder()(torch.tensor([feature["input_ids"]]))  # type: ignore[operator]
        return torch.cat([read for read, _ in rows]), torch.cat([given for _, given in rows])

    with torch.no_grad():
        X, _ = seen(BaseModel(at.folder / "built" / "pruned" / "0").load())
        base = at.base.load()
        _, Y = seen(base)
    W = closed_form.array(base.get_parameter(f"{attention}.o.weight"))
    A, strength = closed_form.damped(closed_form.array(X.T @ X), at.recipe.block.damping)
    mask = closed_form.array(tuned) != 0
    assert mask.sum() == 96
    # Damping pulls towards the pruned weights, from which the block starts.
    right = closed_form.array(Y.T @ X) + strength * W * mask
    wanted = closed_form.masked_rows(W, A, mask, right)
    assert abs(closed_form.array(tuned) - wanted).max() < 1e-3 * abs(wanted).max()


def test_layer_by_layer_variants_depend_on_how_those_before_were_pruned(
    place: Callable[..., Place], tmp_path: Path
) -> None:
    entries = {"*attention": 0.5, "*.lin1": {"rate": 0.5, "criterion": "wanda"}}
    found = []
    for name in ("l1", "l2"):
        (tmp_path / name).mkdir()
        at = place("distilbert", calibration="sequential", criterion=name, folder=tmp_path / name)
        at.prune(entries)
        library = Library(at.folder / "modules" / "pruned")
        heads = {a: library.header(a).lineage for a in library.addresses()}
        found.append({a for a, told in heads.items() if told["stage"] == "pruned"})
    assert not found[0] & found[1]
