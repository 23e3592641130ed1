"""`compose choose`: from wishes to configurations, by what every attention and feed-forward costs at every width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..choosing.choice import CRITERION, Choice, Measured, Menu
from ..choosing.search import prefer_shared, search
from ..choosing.wishes import Wish, read_wishes
from ..errors import ConfigError
from ..files.journal import Journal
from ..files.jsonfile import write_json
from ..files.records import record
from ..progress import SILENT, Bar, Progress
from ..scheme.configurations import Assignment, Configurations, write_configurations
from ..shrinking.units import Units, units_of
from ..workspace import Given, Workspace
from .configure import same_json
from .outcome import Outcome
from .part_times import part_times, setting_of, timer

CORRECTIONS = 2
"""How often the budget of a choice is made stricter that the clock finds slower than was wished."""
CLOSEST = 0.02
"""How near to a loss that is wished the fastest model is looked for, in times as fast."""


def choose(
    recipe: Given,
    *,
    output: Path | None = None,
    measure: bool = True,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Write ``conf.json`` with one configuration per wish of the recipe, and ``choice.json`` with what decided it.

    One pass over the calibration sample gives what every attention and feed-forward costs the loss at every width
    (:mod:`composer.calibration.rises`), and where wishes are about time a table of seconds what it takes there
    (:mod:`.part_times`); an integer program chooses the widths (:mod:`composer.choosing.program`). What was measured is
    kept as it comes: a call that was killed, or with other wishes, goes on from there.

    Args:
        measure: also measure every choice, and the uniform one within the same wish: loss after pruning and repair in
            closed form, on the validation split, and how many times as fast it is.

    Raises:
        ConfigError: wishes that contradict each other or nobody can meet.
        InputError: a machine that is too noisy to measure time.
        OutputError: ``conf.json`` has other content.
    """
    space = Workspace.of(recipe)
    asked = read_wishes(space.recipe)
    path = output or space.conf
    chooser = _Chooser(space, path.parent, asked, measure=measure, force=force, progress=progress)
    programmed = [chooser.choose(wish) for wish in asked]
    choices = chooser.searched(asked, programmed)
    content = Configurations(
        model=space.stored_name(path.parent), configurations=[{**chooser.menu.specs(choice)} for choice in choices]
    )
    fresh = not same_json(path, content.model_dump(exclude_none=True), force)
    summary = chooser.summary(asked, choices, programmed)
    file = path.with_name("choice.json")
    told = {**summary, "provenance": record(chooser.inputs, recipe=space.resolved())}
    write_json(file, told)
    _draw(told, file)
    if fresh:
        write_configurations(path, content)
    return Outcome(path, fresh, {**summary, "choice": str(file)})


def _draw(told: Mapping[str, Any], file: Path) -> None:
    """The page and the picture beside ``choice.json``."""
    from ..report.choices import draw, write_page_of

    write_page_of(told, file.with_suffix(".html"))
    draw(told, file.with_suffix(".png"))


class _Chooser:
    """What is measured of a base model and of choices, each kept in a journal."""

    def __init__(
        self, space: Workspace, folder: Path, asked: Sequence[Wish], *, measure: bool, force: bool, progress: Progress
    ) -> None:
        self.space, self.measure, self.progress, self.force = space, measure, progress, force
        self.units = _units(space)
        self.setting = setting_of(space)
        self.journal = Journal(folder, "choose", self.inputs, force=force)
        timed = any(wish.timed or not wish.asked for wish in asked)
        times = part_times(space, self.units, force=force, progress=progress) if timed else None
        self.menu = Menu(self.units, Measured(**self.journal.row(("measured",), self._rises)), times)
        self.slower: dict[str, float] = {}
        self._models: Any = None

    def choose(self, wish: Wish) -> Choice:
        """The widths for a wish.

        Raises:
            ConfigError: nobody can meet it.
        """
        limit = wish.loss_limit(self.loss({})["loss"]) if wish.loss else None
        if limit is not None and not wish.asked:
            return self._fastest(wish, limit)
        choice = self._as_fast(wish)
        if limit is None:
            return choice
        if (loss := self.loss(self.menu.specs(choice))["loss"]) > limit:
            raise ConfigError(f"{wish}: nobody can meet it: the least loss found is {loss:.4g}, not {limit:.4g}")
        return choice

    def _blocks(self, choices: Sequence[Choice]) -> dict[str, int]:
        """How many pruned parts all configurations have, and how many of them are different ones."""
        whole = {units.path: units.count for units in self.units}
        every = [(path, kept) for c in choices for path, kept in c.kept.items() if kept < whole[path]]
        return {"all": len(every), "different": len(set(every))}

    def _as_fast(self, wish: Wish) -> Choice:
        """The widths for a wish; where the clock says that they are not fast enough, those for a stricter budget.

        Layers of many different widths take somewhat longer than the table's sums.
        """
        choice, name = self.menu.choose(wish), str(wish)
        for _ in range(CORRECTIONS if wish.timed and self.measure else 0):
            wanted = 1 / wish.parts(self.menu.whole["seconds"])["seconds"]
            found = self._faster([choice])[0]
            if found is None or found["high"] >= wanted:
                break
            self.slower[name] = self.slower.get(name, 1.0) * wanted / found["value"]
            try:
                choice = self.menu.choose(wish, self.slower[name])
            except ConfigError:
                break  # it stays as fast as it is, and is told so
        return choice

    def _fastest(self, wish: Wish, limit: float) -> Choice:
        """The fastest model whose measured loss is within the limit, found by halving."""
        best = self.menu.choose(Wish({"speedup": 1.0}))
        low, high = 1.0, self.menu.whole["seconds"] / self.menu.rest["seconds"]
        with self.progress.bar("within the loss", 1 + int((high - low) / CLOSEST).bit_length()) as bar:
            while high - low > CLOSEST:
                middle = (low + high) / 2
                choice = self.menu.choose(Wish({"speedup": middle}))
                inside = self.loss(self.menu.specs(choice))["loss"] <= limit
                low, high, best = (middle, high, choice) if inside else (low, middle, best)
                bar.advance(f"{low:.2f} times as fast")
        return best

    def searched(self, asked: Sequence[Wish], choices: Sequence[Choice]) -> list[Choice]:
        """The choices after the search that the recipe asks for; the validation split decides between before and after.

        Wishes come one after the other, and among nearly equal candidates those are preferred that share blocks with
        the choices made before.
        """
        budget, made = self.space.recipe.search, list[Choice]()
        if not budget:
            return list(choices)
        with self.progress.bar("search", budget * len(choices)) as bar:
            for wish, choice in zip(asked, choices, strict=True):
                same = wish if wish.asked else Wish({"speedup": 1 / choice.left["seconds"]})
                limits = self.menu.budgets(same, self.slower.get(str(wish), 1.0))
                found = search(
                    self.menu.parts,
                    limits,
                    self.menu.indices(choice),
                    lambda widths, sample: self._fitness(widths, sample, bar),
                    budget,
                    self.space.recipe.seed,
                )
                after = self.menu.choice(prefer_shared(found, [self.menu.indices(one) for one in made]))
                both = [self.loss(self.menu.specs(one))["loss"] for one in (choice, after)]
                made.append(after if both[1] < both[0] else choice)
        return made

    def _fitness(self, widths: Sequence[int], sample: float, bar: Bar) -> float:
        """How far a candidate's answers are from the base model's on a part of the calibration sample."""
        count = max(1, round(sample * self.space.recipe.calibration_size))
        assigned = self.menu.specs(self.menu.choice(widths))
        row = self.journal.row(
            ("fitness", count, list(widths)), lambda: {"value": self.models.divergence(assigned, count)}
        )
        bar.advance(f"{row['value']:.4g}")
        return float(row["value"])

    def summary(self, asked: Sequence[Wish], choices: Sequence[Choice], programmed: Sequence[Choice]) -> dict[str, Any]:
        """What is told of the choices, with the uniform ones beside them."""
        even = [
            self.menu.uniform(wish if wish.asked else Wish({"speedup": 1 / choice.left["seconds"]}))
            for wish, choice in zip(asked, choices, strict=True)
        ]
        faster = self._faster([*choices, *even])
        rows = [
            {
                "wish": {**wish.asked, **({"loss_at_most": wish.loss} if wish.loss else {})},
                **self._row(choice, faster[i]),
                "steps": self._steps(uniform=same, program=programmed[i], search=choice),
                "uniform": self._row(same, faster[len(choices) + i]),
            }
            for i, (wish, choice, same) in enumerate(zip(asked, choices, even, strict=True))
        ]
        times = self.menu.times
        return {
            "model": self.space.base.name,
            "units": {units.path: units.count for units in self.units},
            "time": asdict(self.setting),
            "choices": rows,
            "dense": self.loss({}) if self.measure else None,
            "metric": self.space.task.main_metric,
            "times": times.plain() if times else None,
            "blocks": self._blocks(choices),
        }

    def _steps(self, **steps: Choice) -> dict[str, float]:
        """What each step of choosing brought: validation losses."""
        left = {name: choice for name, choice in steps.items() if name != "search" or self.space.recipe.search}
        return {n: self.loss(self.menu.specs(c))["loss"] for n, c in left.items()} if self.measure else {}

    def _row(self, choice: Choice, faster: Mapping[str, Any] | None) -> dict[str, Any]:
        measured = self.loss(self.menu.specs(choice)) if self.measure else None
        return {**asdict(choice), "measured": measured, "faster": faster}

    def _faster(self, choices: Sequence[Choice]) -> list[dict[str, Any] | None]:
        """How many times as fast as the base model each is; all are timed in turn."""
        if not self.measure:
            return [None] * len(choices)
        kept = [dict(choice.kept) for choice in choices]
        key = ("faster", asdict(self.setting), kept)
        return list(self.journal.row(key, lambda: {"faster": self._timed(kept)})["faster"])

    def _timed(self, kept: Sequence[Mapping[str, int]]) -> list[dict[str, Any]]:
        from ..timing.statistics import Ratio

        whole = {units.path: units.count for units in self.units}
        spent = timer(self.space, self.units, self.setting).measure([whole, *kept], self.progress)
        return [asdict(Ratio.of(spent[0], own)) for own in spent[1:]]

    def loss(self, assigned: Assignment) -> dict[str, float]:
        """Loss and metric on the validation split, pruned and repaired in closed form."""
        key = ("loss", {path: str(said) for path, said in sorted(assigned.items())})
        return self.journal.row(key, lambda: self.models.loss(assigned, self.space.examples("valid")))

    @property
    def models(self) -> Any:
        """Configurations of the base model; the moments are gathered once, when they are first needed."""
        if self._models is None:
            from ..composing.candidates import Candidates

            space, model = self.space, self.space.fresh_model()
            calibration = space.calibrated(model, space.base.layout, progress=self.progress)
            r = space.recipe
            how: dict[str, Any] = {"damping": r.block.damping, "seed": r.seed, "dead_columns": r.dead_columns}
            self._models = Candidates(model, space.task, calibration, CRITERION, **how)
        return self._models

    @property
    def inputs(self) -> dict[str, Any]:
        """What shapes the table and the losses."""
        space = self.space
        return {
            "version": __version__,
            "base": space.base.fingerprint,
            "task": {"name": space.task.name, **space.task.scoring},
            "calibration": space.sample_identity(),
            "valid": space.examples("valid").digest,
            "damping": space.recipe.block.damping,
            "device": space.device,
        }

    def _rises(self) -> dict[str, Any]:
        from ..calibration.rises import rises_by_width

        space = self.space
        model = space.fresh_model()
        calibration = space.calibrated(model, space.base.layout, progress=self.progress)
        rises, lengths = rises_by_width(
            model, space.task, calibration, self.units, damping=space.recipe.block.damping, progress=self.progress
        )
        return {
            "rises": rises,
            "lengths": lengths,
            "parameters": sum(p.numel() for p in model.parameters()),
            "stored": space.base.bytes,
            "written": round(space.base.bytes / space.base.parameters),
        }


def _units(space: Workspace) -> list[Units]:
    units = list(units_of(space.base.layout))
    if not units:
        raise ConfigError(
            f"{space.base.name}: no attention and no feed-forward is known in a {space.base.layout.family} model, "
            "so there is nothing to choose; give rates with generate-config --targets"
        )
    return units
