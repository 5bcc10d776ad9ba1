"""What xl says, as it was heard of Xen 4.17, and what it is taken for; and lists of domains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenkeeper.domains import Domain, ListError, domid_of, parse, run_name, writable_disks
from xenkeeper.wording import End, Said, Transcript, read, receive_end, remus_end

LINES = {
    "xc: progress: Domain now suspended: 0/0    0%": Said.SUSPENDED,
    "xc: progress: Checkpointed save: 512/512  100%": Said.SAVED,
    "xc: progress: Checkpointed save: 0/512    0%": Said.NOISE,
    "Remus: Backup failed? resuming domain at primary.": Said.RESUMED,
    "Remus: Primary domain has been destroyed.": Said.DESTROYED,
    "Failed to suspend domain at primary.": Said.SUSPEND_FAILED,
    "No config file stored for running domain and none supplied - cannot start remus.": Said.NO_CONFIG,
    "migration receiver stream contained unexpected data instead of banner": Said.BAD_BANNER,
    "pbx is an invalid domain identifier (rc=-6)": Said.NO_DOMAIN,
    "migration target: Ready to receive domain.": Said.READY,
    "xc: info: All records buffered": Said.BUFFERED,
    "xc: info: All records processed": Said.COMMITTED,
    "xc: error: Failed to read Record Header from stream (0 = Success): Internal error": Said.STREAM_ENDED,
    "xc: info: Restore successful": Said.RESTORED,
    "migration target: Remus Failover for domain 7": Said.FAILOVER,
    "migration target: Domain creation failed (code -3).": Said.CREATE_FAILED,
    "migration target (Remus): Failed to rename domain from pbx--incoming to pbx:-3": Said.RENAME_FAILED,
    "migration target (Remus): Failed to unpause domain pbx (id: 7):-3": Said.UNPAUSE_FAILED,
    "libxl: error: libxl_remus.c:58:libxl__remus_setup: No support for network buffering": Said.ERROR,
    "Loading new save file <incoming migration stream> (new xl fmt info 0x3/0x0/1083)": Said.NOISE,
    "a word that nobody knows": Said.UNKNOWN,
}

GOES_ON = (
    "xc: progress: Domain now suspended: 0/0    0%",
    "xc: error: Failed to write page data to stream (32 = Broken pipe): Internal error",
    "Remus: Backup failed? resuming domain at primary.",
)
TAKES_OVER = (
    "migration target: Ready to receive domain.",
    "xc: info: All records processed",
    "xc: error: Failed to read Record Header from stream (0 = Success): Internal error",
    "xc: info: Restore successful",
    "migration target: Remus Failover for domain 7",
)
REMUS = [
    (0, ("Remus: Primary domain has been destroyed.",), End.DESTROYED),
    (0, (), End.UNKNOWN),
    (1, GOES_ON, End.GOES_ON),
    (1, ("Failed to suspend domain at primary.",), End.NOT_SUSPENDED),
    (1, ("pbx is an invalid domain identifier (rc=-6)",), End.NOT_BEGUN),
    (-9, GOES_ON, End.KILLED),
]
RECEIVE = [
    (0, TAKES_OVER, End.TOOK_OVER),
    (0, (), End.UNKNOWN),
    (1, ("migration target: Domain creation failed (code -3).",), End.NO_COPY),
    (1, (*TAKES_OVER, "migration target (Remus): Failed to unpause domain pbx (id: 7):-3"), End.NOT_RESUMED),
    (-9, TAKES_OVER, End.KILLED),
]

LIST = """\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0   640     1     r-----      31.8
pbx                                          1    96     1     -b----       4.3
pbx--incoming                                2    96     0     --ps--       0.1
"""


def transcript(lines: tuple[str, ...]) -> Transcript:
    heard = Transcript()
    for line in lines:
        heard.take(line)
    return heard


@pytest.mark.parametrize("line", LINES)
def test_every_known_line(line: str) -> None:
    assert read(line).said is LINES[line]


@pytest.mark.parametrize(("status", "lines", "end"), REMUS)
def test_every_end_of_remus(status: int, lines: tuple[str, ...], end: End) -> None:
    assert remus_end(status, transcript(lines)) is end


@pytest.mark.parametrize(("status", "lines", "end"), RECEIVE)
def test_every_end_of_a_receiver(status: int, lines: tuple[str, ...], end: End) -> None:
    assert receive_end(status, transcript(lines)) is end


def test_the_domain_that_took_over_is_known() -> None:
    assert transcript(TAKES_OVER).domid == 7


def test_a_complaint_is_the_line_that_says_what_to_do() -> None:
    heard = transcript(
        ("libxl: error: libxl_dom_suspend.c:404: guest did not suspend", "Failed to suspend domain at primary.")
    )
    assert heard.complaint.startswith("Failed to suspend domain at primary.; the guest does not answer")
    assert transcript(("libxl: error: first", "libxl: error: second")).complaint == "libxl: error: first"
    assert transcript(()).complaint == ""


@given(st.text(max_size=200))
def test_no_line_is_too_odd(text: str) -> None:
    assert read(text).text == text


def test_a_list_of_domains() -> None:
    found = parse(LIST)
    assert found[1:] == (Domain("pbx", 1, "-b----"), Domain("pbx--incoming", 2, "--ps--"))
    assert not any(domain.ended for domain in found)
    assert Domain("pbx", 1, "----c-").ended
    assert Domain("pbx", 1, "-----d").ended


@pytest.mark.parametrize(
    "text", ["", "Name ID\n", LIST.replace(" 0   640", " ?   640"), "\n".join(LIST.splitlines()[:1])]
)
def test_what_is_no_list_is_none(text: str) -> None:
    """A host without dom0 in its list would let every run seem to have ended."""
    with pytest.raises(ListError):
        parse(text)


def test_disks() -> None:
    described = '[{"config": {"disks": [{"vdev": "xvda", "readwrite": 1}, {"vdev": "xvdb", "readwrite": 0}]}}]'
    assert writable_disks(described) == ["xvda"]
    assert writable_disks('[{"config": {}}]') == []
    for wrong in ("", "[]", "{}", '[{"config": 3}]'):
        with pytest.raises(ListError):
            writable_disks(wrong)


def test_a_run_belongs_to_one_boot() -> None:
    assert domid_of(run_name("0badcafe", 3), "0badcafe") == 3
    assert domid_of(run_name("0badcafe", 3), "c0ffee00") is None
    assert domid_of("", "0badcafe") is None
    assert domid_of("0badcafe.x", "0badcafe") is None
