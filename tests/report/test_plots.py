"""Curves: strict reading of stats files, pictures of any number of runs, the same bytes every time."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from composer.errors import DataError, InputError, OutputError
from composer.report import phases, plots
from composer.report.curves import Curve, Point, read_all, read_stats
from composer.report.kit import canvas

HEADER = "step,epoch,train_loss,valid_loss,train_seconds,valid_seconds\n"
BLOCK_HEADER = "level,path,rates,node," + HEADER
RUN = HEADER + "0,0,,3.5,0,0.5\n10,0.5,2.9,2.5,4.0,1.0\n20,1,2.2,2.1,8.0,1.5\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def runs(folder: Path, count: int = 2) -> list[Path]:
    sides = [f"{side}-{i}.csv" for i in range(count) for side in ("model", "baseline")]
    return [write(folder, name, RUN) for name in (*sides, "dense.csv")]


def blocks(folder: Path) -> Path:
    rows = [
        f"{level},{level}.{i},0.25,{level}{i},{step},0,,{1 / (1 + step + i)},{step * 0.1},0\n"
        for level in ("sublayer", "module")
        for i in range(5)
        for step in (0, 10, 20)[: 2 + i % 2]
    ]
    return write(folder, "block.csv", BLOCK_HEADER + "".join(rows))


def joint(folder: Path, count: int = 3) -> Path:
    rows = [
        f"{i},{step},0,{'' if step == 0 else 2.5},{3 + i - step / 10},{step},0\n"
        for i in range(count)
        for step in (0, 5, 10)
    ]
    return write(folder, "joint.csv", "configuration," + HEADER + "".join(rows))


def size_of(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


class TestReading:
    def test_rows_and_empty_fields(self, tmp_path: Path) -> None:
        stats = read_stats(write(tmp_path, "model-2.csv", RUN))
        assert stats.kind == "run"
        assert stats.curves[0].points[0] == Point(0, None, 3.5, 0.0)
        assert (stats.curves[0].kind, stats.curves[0].configuration) == ("composed", 2)

    def test_blocks_are_told_apart_by_level_and_node(self, tmp_path: Path) -> None:
        stats = read_stats(blocks(tmp_path))
        assert stats.kind == "blocks"
        assert len(stats.curves) == 10
        assert {curve.level for curve in stats.curves} == {"module", "sublayer"}

    def test_configurations_of_the_joint_phase(self, tmp_path: Path) -> None:
        stats = read_stats(joint(tmp_path))
        assert stats.kind == "joint"
        assert [(c.kind, c.configuration, c.label) for c in stats.curves] == [
            ("joint", i, f"{i} joint") for i in range(3)
        ]
        assert stats.curves[1].line("valid_loss", "step") == ([0, 5, 10], [4, 3.5, 3])
        bad = write(tmp_path, "joint.csv", "configuration," + HEADER + "x,0,0,,1,0,0\n")
        with pytest.raises(DataError, match=r"line 2, column configuration: got 'x'; needed: its number, from 0"):
            read_stats(bad)

    def test_windows_line_ends_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "\ufeff" + RUN.replace("\n", "\r\n"))
        assert len(read_stats(path).curves[0].points) == 3

    def test_a_diverged_loss_is_a_gap(self) -> None:
        curve = Curve("x", (Point(0, None, 1.0, 0.0), Point(1, None, float("inf"), 1.0)))
        assert [v == v for v in curve.line("valid_loss", "step")[1]] == [True, False]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"a\.csv: is empty; needed: a header line step,epoch"),
            (HEADER, r"a\.csv: line 2: no rows after the header"),
            ("step,loss\n0,1\n", r"a\.csv: line 1: the columns are 'step,loss'; needed: step,epoch,train_loss"),
            (HEADER + "0,0,,1\n", r"a\.csv: line 2: 4 fields; the header has 6"),
            (HEADER + "0,0,,1,0,0\n1,0,abc,1,0,0\n", r"line 3, column train_loss: got 'abc'; needed: a number"),
            (HEADER + "x,0,,1,0,0\n", r"line 2, column step: got 'x'; needed: a number"),
            (HEADER + ",0,,1,0,0\n", r"line 2, column step: got ''; needed: a whole number from 0"),
            (HEADER + "-1,0,,1,0,0\n", r"line 2, column step: got '-1'; needed: a whole number"),
            (HEADER + "nan,0,,1,0,0\n", r"line 2, column step: got 'nan'; needed: a whole number"),
            (HEADER + "5,0,,1,0,0\n5,0,,1,0,0\n", r"line 3, column step: got 5 after 5; steps must increase"),
            (HEADER + '"0,0,,1,0,0\n', r"a\.csv: line 2: not valid CSV"),
        ],
    )
    def test_malformed_files_name_file_line_and_column(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_stats(write(tmp_path, "a.csv", text))

    def test_a_table_of_blocks_may_be_empty_beside_others(self, tmp_path: Path) -> None:
        empty, run = write(tmp_path, "block.csv", BLOCK_HEADER), write(tmp_path, "model-0.csv", RUN)
        lost = write(tmp_path, "model-1.csv", HEADER)
        assert [len(stats.curves) for stats in read_all([empty, run])] == [0, 1]
        for paths in ([empty], [empty, empty], [run, lost]):
            with pytest.raises(DataError, match=r"(block|model-1)\.csv: line 2: no rows after the header"):
                read_all(paths)

    def test_all_problems_of_all_files_at_once(self, tmp_path: Path) -> None:
        bad = write(tmp_path, "bad.csv", HEADER + "0,0,x,y,0,0\n")
        with pytest.raises(DataError) as caught:
            plots.plot([bad, tmp_path / "none.csv", tmp_path], tmp_path / "loss.png")
        assert len(caught.value.problems) == 4
        assert all("\n" not in problem for problem in caught.value.problems)
        assert not (tmp_path / "loss.png").exists()

    def test_a_long_list_of_problems_is_cut(self, tmp_path: Path) -> None:
        text = HEADER + "".join(f"{i},0,x,1,0,0\n" for i in range(20))
        with pytest.raises(DataError, match="and 15 more problems"):
            read_stats(write(tmp_path, "a.csv", text))


class TestPlot:
    def test_png(self, tmp_path: Path) -> None:
        output = tmp_path / "new" / "loss.png"
        plots.plot([*runs(tmp_path), blocks(tmp_path), joint(tmp_path)], output)
        width, height = size_of(output)
        assert width > 1200
        assert height > 900
        assert output.stat().st_size > 20_000
        assert not list(output.parent.glob("*.tmp"))

    def test_svg_is_xml_and_the_same_bytes_every_time(self, tmp_path: Path) -> None:
        first, second = tmp_path / "a.svg", tmp_path / "b.SVG"
        for output in (first, second):
            plots.plot(runs(tmp_path), output)
        assert first.read_bytes() == second.read_bytes()
        assert ElementTree.fromstring(first.read_bytes()).tag.endswith("svg")

    def test_blocks_alone(self, tmp_path: Path) -> None:
        plots.plot([blocks(tmp_path)], tmp_path / "b.png")
        assert size_of(tmp_path / "b.png")[0] > 1000

    def test_many_runs_and_odd_names(self, tmp_path: Path) -> None:
        names = ["_x.csv", "a$b$.csv", "a & <b>.csv", "model-3-1of4.csv"]
        plots.plot([*runs(tmp_path, 9), *(write(tmp_path, n, RUN) for n in names)], tmp_path / "l.svg")
        text = (tmp_path / "l.svg").read_text("utf-8")
        assert ElementTree.fromstring(text) is not None
        assert "a$b$" in text

    def test_a_single_point_and_a_diverged_run(self, tmp_path: Path) -> None:
        one = write(tmp_path, "one.csv", HEADER + "0,0,,2.5,,\n")
        gone = write(tmp_path, "gone.csv", HEADER + "0,0,,nan,0,0\n1,0,inf,nan,1,0\n")
        plots.plot([one], tmp_path / "one.png")
        plots.plot([gone], tmp_path / "gone.png")

    def test_other_suffixes(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"loss\.pdf: the suffix is '\.pdf'; allowed: \.png or \.svg"):
            plots.plot(runs(tmp_path), tmp_path / "loss.pdf")

    def test_no_files(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="got no CSV files"):
            plots.plot([], tmp_path / "loss.png")

    def test_output_that_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "loss.png").mkdir()
        with pytest.raises(OutputError, match=r"loss\.png: cannot be written"):
            plots.plot(runs(tmp_path), tmp_path / "loss.png")


class TestFigures:
    def test_the_joint_phase_has_a_line_for_each_configuration_and_their_mean(self, tmp_path: Path) -> None:
        figure = phases.joint_figure(read_stats(joint(tmp_path)).curves)
        lines = figure.axes[0].lines
        assert [line.get_label() for line in lines] == ["0", "1", "2", "mean"]
        assert lines[3].get_ydata() == pytest.approx([4, 3.5, 3])
        assert len({line.get_color() for line in lines}) == 4

    def test_blocks_without_validation_are_drawn_by_what_they_were_solved_from(self) -> None:
        curve = Curve("b", (Point(0, 0.4, None, 0.0), Point(1, 0.1, None, 0.1)), "sublayer")
        (axes,) = phases.block_figure([curve]).axes
        assert list(axes.lines[0].get_ydata()) == [0.4, 0.1]
        assert axes.get_title() == "block phase, closed form: calibration examples"

    def test_a_stopped_block_counts_with_its_best(self) -> None:
        curve = Curve("n", (Point(0, None, 0.5, 0.0), Point(10, None, 0.2, 1.0), Point(20, None, 0.4, 2.0)), "module")
        figure = phases.block_figure([curve, Curve("m", (Point(0, None, 0.3, 0.0),), "module")])
        assert figure.axes[0].lines[0].get_ydata() == pytest.approx([0.4, 0.25, 0.25])

    def test_a_pair_shares_its_colour_hue_and_marker(self, tmp_path: Path) -> None:
        curves = [read_stats(path).curves[0] for path in runs(tmp_path, 2)]
        figure = plots.loss_figure(curves)
        valid = figure.axes[0].lines[1::2]
        assert [line.get_linestyle() for line in valid] == ["-", "--", "-", "--", "-."]
        assert [line.get_marker() for line in valid[:4]] == ["o", "o", "s", "s"]

    def test_one_panel_per_configuration_with_the_dense_line(self, tmp_path: Path) -> None:
        curve = read_stats(runs(tmp_path)[0]).curves[0]
        panels = [plots.Panel(0, curve, curve), plots.Panel(1, None, curve), plots.Panel(2, curve, None)]
        figure = plots.comparison_figure(panels, dense=1.5)
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert [axes.get_title() for axes in shown] == ["configuration 0", "configuration 1", "configuration 2"]
        assert [len(axes.lines) for axes in shown] == [3, 2, 2]

    def test_inline_svg_takes_the_pages_colours_and_own_ids(self, tmp_path: Path) -> None:
        curve = read_stats(runs(tmp_path)[0]).curves[0]
        make = [canvas.inline(plots.comparison_figure([plots.Panel(0, curve, None)]), "p", 'a "b" <c>') for _ in "ab"]
        assert make[0] == make[1]
        root = ElementTree.fromstring(make[0])
        assert root.get("aria-label") == 'a "b" <c>'
        assert "var(--ink)" in make[0]
        assert "var(--s0)" in make[0]
        assert all(e.get("id", "p-").startswith("p-") for e in root.iter())

    def test_settings_of_matplotlib_come_back(self, tmp_path: Path) -> None:
        import matplotlib

        before = dict(matplotlib.rcParams)
        plots.plot(runs(tmp_path), tmp_path / "a.svg")
        assert dict(matplotlib.rcParams) == before
