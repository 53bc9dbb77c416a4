"""The page of the conformance specs, which is read again where only some areas were run."""

from __future__ import annotations

from conformance.report import Rows, Spec


def test_a_page_is_read_as_it_was_written() -> None:
    rows, again = Rows(), Rows()
    rows.add([Spec("apps", "A | b", "<said> | so"), Spec("apps", "C", ""), Spec("node", "D", "")])
    assert rows.counts == {"apps": (1, 2), "node": (1, 1)}
    again.read(rows.page("# Head\n"))
    assert again == rows


def test_areas_that_were_run_take_the_place_of_what_was_known_of_them() -> None:
    rows = Rows()
    rows.add([Spec("apps", "A", "broken"), Spec("node", "B", "broken")])
    rows.add([Spec("apps", "A", ""), Spec("apps", "C", "")])
    assert rows.counts == {"apps": (2, 2), "node": (0, 1)}
    assert rows.failed == [("node", "B", "broken")]
    assert "| all | 2 | 3 |" in rows.page("")


def test_known_reasons_are_told_in_words_and_others_as_the_spec_says_them() -> None:
    rows = Rows()
    rows.add([Spec("node", "ImageVolume should succeed", "Timed out"), Spec("node", "Else", "x" * 500)])
    assert [why[:40] for _, _, why in rows.failed] == ["volumes of type image are not there", "x" * 40]
