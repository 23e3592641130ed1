"""The command line of the assessment."""

from __future__ import annotations

from pathlib import Path

import pytest

from composer.cli.app import call

WRONG = {
    "--rates x": "error: --rates: got 'x'",
    "--criteria l3": "error: --criteria: ",
    "--parts everything": "error: --parts: got 'everything'",
    "--evaluation x": "error: --evaluation: nothing to measure there",
    "--parts calibration": "error: --calibration: nothing given",
    "--granularities 3:5 --criteria l1": "fits no target of this model",
    "--granularities row --criteria wanda": "makes no sense with --criteria wanda",
    "--sparsity 0.95": "the highest of --rates removes",
    "--targets nothing.*": "error: --targets: 'nothing.*' matches no target",
}


@pytest.mark.parametrize("flags", WRONG)
def test_what_is_wrong_is_one_line_and_status_2(
    flags: str,
    distilbert_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["assess", str(distilbert_folder), *flags.split()]) == 2
    said = capsys.readouterr()
    assert WRONG[flags] in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not (tmp_path / "assessment").exists()


def test_it_says_what_it_made_and_what_not(
    distilbert_folder: Path,
    classification_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("composer.assess.pages.page.write_page", lambda *_, **__: None)
    words = ["assess", str(distilbert_folder), "--data", str(classification_data), "-o", str(tmp_path / "a")]
    assert call([*words, "--rates", "0.5", "--criteria", "l1", "--sparsity", "0.3", "--no-repair"]) == 0
    said = capsys.readouterr().out
    for part in ("Curves", "Proposal", "calibration: not made", "page: "):
        assert part in said
