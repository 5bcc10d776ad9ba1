"""What checkpoints cost, worked out of a run's files."""

from __future__ import annotations

from pathlib import Path

from tunnelswitch_lab.measure.checkpoints import quantile, waits
from tunnelswitch_lab.workload.trace import TraceWriter

SECOND = 1_000_000_000


def test_only_first_answers_to_packets_of_that_time_count(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "trace") as trace:
        for sequence, sent, received in ((1, 9, 11), (2, 10, 12), (3, 11, 14), (4, 12, 21)):
            trace.sent(sequence, sent * SECOND)
            trace.received(sequence, 0, received * SECOND, sequence, b"run-----", "primary")
        trace.received(2, 0, 13 * SECOND, 2, b"run-----", "primary")
        trace.sent(5, 13 * SECOND)  # never answered
    assert waits(tmp_path / "trace", 10 * SECOND, 20 * SECOND) == [2.0, 3.0]


def test_a_quantile_is_a_value_that_occurred() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 2.0, 3.0, 3.0]
