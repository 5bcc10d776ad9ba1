"""What a case shows is read from the client's packets alone."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tunnelswitch_lab.bench import report
from tunnelswitch_lab.bench.cases import CASES, Told, look
from tunnelswitch_lab.matrix.packets import PROBE, Answer, Exchange

OLD, NEW = ("primary", "a1"), ("secondary", "b2")


def answers(*stretches: tuple[tuple[str, str], Iterable[int]]) -> Exchange:
    """Answers to probes by number, one a millisecond, by these copies."""
    found = [
        Answer(number / 1000, PROBE, number, run, site) for (site, run), numbers in stretches for number in numbers
    ]
    return Exchange(sorted(found, key=lambda answer: answer.at), {})


def test_a_clean_move_names_both_copies_and_the_silence() -> None:
    seen = look(answers((OLD, range(-100, 10)), (NEW, range(60, 4000))), 4.0)
    assert [one.site for one in seen.served] == ["primary", "secondary"]
    assert (seen.silence_seconds, seen.overlap, seen.answered_at_end) == (0.05, 0, True)
    assert seen.short == "primary → secondary; silent 50 ms"


def test_silence_to_the_end_is_told() -> None:
    seen = look(answers((OLD, range(-100, 10))), 4.0)
    assert not seen.answered_at_end
    assert seen.short == "primary; silent 3990 ms, to the end"


def test_a_replaced_copy_that_answers_again_is_counted() -> None:
    seen = look(answers((OLD, range(-100, 10)), (NEW, range(60, 2000)), (OLD, range(2000, 2300))), 2.4)
    assert seen.overlap == 300
    assert seen.short.startswith("primary → secondary → primary; silent")
    assert seen.short.endswith("300 answers of a replaced copy")


def test_two_copies_that_answer_one_question_are_counted() -> None:
    both = look(answers((OLD, range(-100, 1000)), (NEW, [999])), 1.0)
    assert both.overlap == 1


def test_many_changes_are_counted_and_not_all_told() -> None:
    turns = [((OLD, NEW)[n % 2], range(n * 10, n * 10 + 10)) for n in range(50)]
    seen = look(answers(*turns), 0.5)
    assert "49 changes" in seen.short
    told = Told("keepalived", 100, CASES[0], "", seen).as_json()
    assert (told["changes"], told["copies"], len(told["served"])) == (49, 2, 8)
    json.dumps(told)


def test_nobody_who_answers_is_no_error() -> None:
    assert look(Exchange([], {}), 4.0).short == "nobody; silent 4000 ms, to the end"


def test_the_table_has_every_case_with_every_system() -> None:
    seen = look(answers((OLD, range(-100, 4000))), 4.0)
    told = [Told(name, 100, case, "", seen) for case in CASES for name in ("tunnelswitch", "keepalived")]
    failed = Told("pacemaker", 100, CASES[0], "corosync ended")
    text = report.markdown(report.summarise([], [*told, failed], {}))
    assert all(f"**{case.name}**" in text for case in CASES)
    assert "| pacemaker | 100 | not carried out: corosync ended |" in text
