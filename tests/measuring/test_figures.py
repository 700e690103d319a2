"""What figures have in common."""

import sys

import pytest

from tall_hf.measuring.figures import colour, error_bars, figure_class, save_png


@pytest.mark.parametrize("extra", ["eval", "train"])
def test_without_matplotlib_it_says_what_to_install(monkeypatch, extra):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=rf"pip install 'tall-hf\[{extra}\]'"):
        figure_class(extra)


def test_twenty_places_have_colours_of_their_own():
    assert len({colour(place) for place in range(20)}) == 20 and colour(20) == colour(0)


def test_bars_reach_to_the_bounds_and_never_backwards():
    below, above = error_bars([0.2, 1.0], [(0.1, 0.4), (0.9, 1.0 - 1e-16)])
    assert below == pytest.approx([10, 10]) and above == pytest.approx([20, 0])
    assert min(above) >= 0


def test_a_figure_appears_when_it_is_whole(tmp_path, monkeypatch):
    figure = figure_class()()
    assert save_png(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

    def broken(path, **options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        save_png(figure, tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
