"""Rows that other packages add to a registry by their entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from composer.errors import InputError, PluginError
from composer.files.environment import versions
from composer.registry import Registry
from tests.conftest import installed

GROUP = "composer.tests"
TABLE = {"pi": "math:pi"}


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, **rows: str) -> None:
    """What an installer leaves behind of a package with these entry points."""
    site = folder / f"site-{package}"
    installed(site, package, "1.0", {GROUP: rows})
    monkeypatch.syspath_prepend(site)


def test_rows_of_other_packages_come_after_the_table_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "circle", tau="math:tau", e="math:e")
    registry = Registry[float]("number", TABLE, GROUP)
    assert registry.names() == ("pi", "e", "tau")
    assert registry.get("tau") == 2 * registry.get("pi")
    assert len(list(registry.all())) == 3


def test_a_registry_without_a_group_takes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "circle", tau="math:tau")
    assert Registry[float]("number", TABLE).names() == ("pi",)


def test_an_unknown_name_is_told_of_the_rows_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "circle", tau="math:tau")
    with pytest.raises(InputError, match="unknown number 'taw'; allowed: pi, tau; did you mean 'tau'"):
        Registry[float]("number", TABLE, GROUP).get("taw")


@pytest.mark.parametrize("row", ["no_such_module_here:x", "math:no_such_number"])
def test_a_row_that_cannot_be_had_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: str) -> None:
    install(monkeypatch, tmp_path, "circle", tau=row)
    registry = Registry[float]("number", TABLE, GROUP)
    assert registry.names() == ("pi", "tau")
    with pytest.raises(PluginError, match=f"number 'tau' of the package circle: {row}: .*no_such"):
        registry.get("tau")


def test_a_name_of_the_table_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "circle", pi="math:e")
    with pytest.raises(PluginError, match="number 'pi': the packages composer and circle both have one"):
        Registry[float]("number", TABLE, GROUP).names()


def test_two_packages_with_one_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "circle", tau="math:tau")
    install(monkeypatch, tmp_path, "round", tau="math:e")
    with pytest.raises(PluginError, match="both have one; uninstall one of them"):
        Registry[float]("number", TABLE, GROUP).get("tau")


def test_one_package_found_in_two_places_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "a", "circle", tau="math:tau")
    install(monkeypatch, tmp_path / "b", "circle", tau="math:tau")
    assert Registry[float]("number", TABLE, GROUP).names() == ("pi", "tau")


def test_packages_that_were_looked_at_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "circle", tau="math:tau", e="math:e")
    told = Registry[float]("number", TABLE, GROUP).looked_at()
    assert told == f"entry points {GROUP} of the installed packages: e of circle, tau of circle"


def test_the_version_of_a_package_is_recorded_once_a_row_of_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "half_turn.py").write_text("half = 3.14\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    install(monkeypatch, tmp_path, "circle", half="half_turn:half")
    registry = Registry[float]("number", TABLE, GROUP)
    assert "circle" not in versions()
    assert registry.get("half") == 3.14
    assert versions()["circle"] == "1.0"
    assert versions()["python"]
