"""Project Gutenberg's additions are removed, in every form that they ever had, and nothing else is."""

import pytest

from src.data.gutenberg import has_end_marker, strip_boilerplate

PLAY = "THE TEMPEST\n\nby William Shakespeare\n\n\n\n" + "".join(
    f"PROSPERO.\n  Line {i}: the project gathers to a head.\n\n" for i in range(400)
)
LICENCE = "A licence of many words. " * 400 + "\n"
MODERN = (
    "The Project Gutenberg eBook of The Tempest\n\nTitle: The Tempest\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n\n\n\n"
    f"{PLAY}\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n\n{LICENCE}"
)
NOTICE = "<<THIS ELECTRONIC VERSION OF THE COMPLETE WORKS\nIS PROVIDED BY SOMEBODY,\nAND SO ON FOR MEMBERSHIP.>> \n"


@pytest.mark.parametrize("start", ["*** START OF THE PROJECT", "*** START OF THIS PROJECT", "***START OF THE PROJECT"])
@pytest.mark.parametrize("kind", ["EBOOK", "ETEXT"])
def test_everything_outside_the_markers_is_removed(start: str, kind: str) -> None:
    end = start.replace("START", "END")
    text = (
        f"Title: X\n\n{start} GUTENBERG {kind} OF A\nLONG TITLE ***\n\n{PLAY}\n{end} GUTENBERG {kind} X ***\n{LICENCE}"
    )
    cleaned = strip_boilerplate(text)
    assert cleaned.text == PLAY.strip("\n") + "\n"
    assert cleaned.kept_fraction == pytest.approx(len(cleaned.text) / len(text))


OLD = (
    f"This is an Etext presented by Project Gutenberg\n\n{LICENCE}\n"
    f"*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n\n{PLAY}\n"
    "End of Project Gutenberg's Etext of The Tempest\n"
)


@pytest.mark.parametrize("books", [[MODERN, MODERN], [MODERN] * 3, [OLD, OLD], [OLD, MODERN, OLD], [MODERN, OLD]])
def test_every_book_of_a_file_is_stripped(books: list[str]) -> None:
    cleaned = strip_boilerplate("\n".join(books))
    assert cleaned.text == "\n\n\n\n".join([PLAY.strip("\n")] * len(books)) + "\n"
    assert cleaned.n_books == len(books)


def test_a_text_between_two_books_is_not_dropped_in_silence() -> None:
    with pytest.raises(ValueError, match=r"would keep only \d\d\.\d% of \d+ characters"):
        strip_boilerplate(MODERN + PLAY * 4 + MODERN)


def test_many_blank_lines_take_no_longer_than_others() -> None:
    text = "word" + "\n" * 300_000 + "<<word>>\n"
    assert strip_boilerplate(text).text == text


@pytest.mark.parametrize(
    "header_end",
    [
        "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
        "*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*\n",
        '****   SMALL PRINT! FOR __ COMPLETE SHAKESPEARE ****\n["Small Print" V.12.08.93]\n\n' + NOTICE,
    ],
)
@pytest.mark.parametrize(
    "footer",
    [
        "End of this Etext of The Tempest\n\n\n",
        "End of Project Gutenberg's Etext of The Tempest\n" + LICENCE,
        "***End of The Project Gutenberg Etext of The Tempest\n" + LICENCE,
        f"{NOTICE}\nEnd of this Etext of X\n\nEnd of the Project Gutenberg EBook of X\n\n*** END OF THIS PROJECT"
        f" GUTENBERG EBOOK X ***\n{LICENCE}",
    ],
)
@pytest.mark.parametrize(
    "modern", ["", "*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nProduced by World Library\n\n"]
)
def test_headers_and_footers_of_the_1990s_are_removed(modern: str, header_end: str, footer: str) -> None:
    header = f"This is an Etext presented by Project Gutenberg\n\n{LICENCE}\n{header_end}\n\n"
    credit = "This etext was prepared by a team of\nProject Gutenberg volunteers.\n\n\n"
    assert strip_boilerplate(modern + header + credit + PLAY + footer).text == PLAY.strip("\n") + "\n"


def test_licence_notices_between_scenes_are_removed() -> None:
    scenes = [f"SCENE {i}\n\n                 Enter ARIEL\n  ARIEL. All hail, {i}.\n" for i in range(50)]
    cleaned = strip_boilerplate(f"\n\n\n\n{NOTICE}\n\n\n".join(scenes))
    assert cleaned.text == "\n\n\n".join(scene.rstrip("\n") for scene in scenes) + "\n"


def test_line_endings_are_normalised() -> None:
    assert strip_boilerplate("one\r\ntwo\rthree\n").text == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n\n  " + PLAY + "  \n\n",
        "Produced by a player's hand\n\n" + PLAY,
        PLAY + "\nEnd of the play\n\n*** \n" + PLAY,
        PLAY + "End of this Etext, said he, two hundred pages before the end\n" + PLAY * 3,
    ],
)
def test_a_text_without_boilerplate_is_unchanged(text: str) -> None:
    cleaned = strip_boilerplate(text)
    assert cleaned.text == text
    assert cleaned.kept_fraction == 1.0


def test_a_marker_in_the_middle_of_a_big_text_is_refused() -> None:
    text = PLAY * 10 + "*** END OF THE PROJECT GUTENBERG EBOOK THE TEMPEST ***\n" + PLAY * 10
    with pytest.raises(ValueError, match=r"would keep only (49|50)\.\d% of \d+ characters"):
        strip_boilerplate(text)


def test_a_text_of_boilerplate_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"would keep only 0\.\d% of"):
        strip_boilerplate(MODERN.replace(PLAY, ""))


def test_a_truncated_ebook_has_no_end_marker() -> None:
    assert has_end_marker(MODERN)
    assert not has_end_marker(MODERN[: len(MODERN) // 3])
