"""The drawn figures: every packet and every run is there, both kinds on the same axes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from tunnelswitch_lab.measure import charts
from tunnelswitch_lab.paper.figures import KINDS, Heard, fig4, fig5, standalone


def call(outage_seconds: float, jitter_seconds: float) -> list[Heard]:
    heard = [Heard(number * 0.02 - 1.0, 0.02, 0.0001, jitter_seconds) for number in range(51)]
    begin = heard[-1].at_seconds + outage_seconds + 0.02
    return heard + [
        Heard(begin + number * 0.02, 0.02 + outage_seconds * (number == 0), 0.0001, jitter_seconds)
        for number in range(90)
    ]


def test_both_panels_tell_their_outage_and_share_their_axes() -> None:
    picture = fig4({"original": call(0.15, 0.0004), "modified": call(0.06, 0.0002)})
    ET.fromstring(picture)
    assert "(a) original" in picture
    assert "outage 150.0 ms" in picture
    assert "(b) modified" in picture
    assert "outage 60.0 ms" in picture
    assert picture.count('class="outage"') == 2
    for kind in KINDS:
        assert len(re.findall(f'class="curve {kind}"', picture)) == 2, "nothing is drawn across the silence"
    ticks = re.findall(r'text-anchor="end" class="tick">([^<]+)<', picture)
    assert ticks[: len(ticks) // 2] == ticks[len(ticks) // 2 :]


def test_one_panel_alone_is_drawn_too_and_nothing_of_nothing() -> None:
    assert "(b) modified" in fig4({"modified": call(0.06, 0.0002)})
    assert fig4({}) == ""
    assert fig5({"original": {}, "modified": {}}) == ""


def test_every_run_is_a_dot_and_what_is_far_above_keeps_its_value() -> None:
    series = {"original": {40: [0.08, 0.09, 2.133], 800: [0.1]}, "modified": {40: [0.07], 800: []}}
    picture = fig5(series, top_ms=250)
    ET.fromstring(picture)
    assert (picture.count('class="run original"'), picture.count('class="run modified"')) == (4, 1)
    assert ">2133<" in picture
    assert ">90<" in picture, "the median"
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', picture)]
    assert min(heights) >= 46


def test_a_figure_stands_alone_in_light_and_dark() -> None:
    alone = standalone(fig5({"original": {40: [0.08]}, "modified": {40: [0.07]}}))
    root = ET.fromstring(alone)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in alone


def test_promotion_counts_only_where_it_outlasts_the_switch() -> None:
    marks = {"verdict": 0.03, "committed": 0.04, "applied": 0.05, "first_packet": 0.07}
    assert dict(charts.phases({**marks, "promoted": 0.06}))["promote"] == 0.06 - 0.05
    assert "promote" not in dict(charts.phases({**marks, "promoted": 0.045}))
    late = charts.phases({**marks, "promoted": 0.09})
    assert abs(sum(seconds for _, seconds in late) - 0.07) < 1e-9
