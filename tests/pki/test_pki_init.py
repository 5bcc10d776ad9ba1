"""`tunnelswitch pki init` as an operator meets it: what it makes, what it keeps, and what it says of mistakes."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from deployed import EXAMPLE, two_groups, who

from tunnelswitch.bus import nkey
from tunnelswitch.errors import BusError, PkiError
from tunnelswitch.pki.certificates import load_certificate
from tunnelswitch.pki.identities import identities
from tunnelswitch.pki.issue import ACCOUNTS, issue

COMMAND = (sys.executable, "-c", "from tunnelswitch.cli.main import run; run()", "pki", "init")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything, not to be changed."""
    directory = tmp_path_factory.mktemp("made") / "pki"
    issue(two_groups(), directory)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_every_identity_has_a_key_of_its_own(made: Path) -> None:
    seeds = [identity.seed(made) for identity in identities(two_groups())]
    assert {path.relative_to(made) for path in made.rglob("*.nk")} == {seed.relative_to(made) for seed in seeds}
    public = {nkey.public(seed) for seed in seeds}
    assert len(public) == len(seeds)
    accounts = (made / ACCOUNTS).read_text()
    assert all(accounts.count(key) == 1 for key in public)


def test_secrets_are_for_their_holder_alone(made: Path) -> None:
    for path in (made, *made.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        public = path.suffix in (".crt", ".conf") or path.name == "nats"
        assert mode == ((0o755 if public else 0o700) if path.is_dir() else 0o644 if public else 0o600), path
    assert b"PRIVATE" not in (made / ACCOUNTS).read_bytes()


def test_servers_are_known_by_the_addresses_that_clients_use(made: Path) -> None:
    def names(name: str) -> set[str]:
        found = load_certificate(made / name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {str(each.value) for each in found}

    assert names("primary/nats.crt") == {"10.9.0.1"}
    assert names("edge/nats.crt") == {"10.9.0.4", "bus.edge.example"}
    assert names("edge/ovsdb.crt") == {"10.9.0.4", "edge.example"}
    client = load_certificate(made / "edge/client.crt").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(client) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("name", "authority", "purposes"),
    [
        ("primary/nats", "ca", ["sslserver", "sslclient"]),
        ("primary/ovsdb", "primary/ovsdb", ["sslserver"]),
        ("primary/client", "primary/client", ["sslclient"]),
    ],
)
def test_certificates_hold(made: Path, name: str, authority: str, purposes: list[str]) -> None:
    """Asked of an independent reader."""
    for purpose in purposes:
        trusted = ["-CAfile", made / f"{authority}.crt", "-no-CApath", "-no-CAstore"]
        command = ["openssl", "verify", "-purpose", purpose, *trusted, made / f"{name}.crt"]
        subprocess.run(command, check=True, capture_output=True)
    text = ["openssl", "x509", "-noout", "-text", "-in", made / f"{name}.crt"]
    assert "CA:FALSE" in subprocess.run(text, check=True, capture_output=True, text=True).stdout


def test_again_it_keeps_everything_and_makes_what_a_new_site_needs(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    first = run("--config", str(EXAMPLE), "--out", str(directory))
    assert (first.returncode, first.stderr) == (0, "")
    assert f"made: {directory}/gateway/system.nk" in first.stdout
    before = files(directory)
    again = run("--config", str(EXAMPLE), "--out", str(directory))
    assert again.stdout == f"kept as it was: {len(before)} files\n"
    assert files(directory) == before
    grown = issue(two_groups(), directory)
    assert {"edge/agent.nk", "edge/nats.key", "watcher/nats.crt"} <= set(grown.made)
    assert grown.renewed == [str(ACCOUNTS)]
    after = files(directory)
    assert {name: after[name] for name in before if name != str(ACCOUNTS)} == {
        name: text for name, text in before.items() if name != str(ACCOUNTS)
    }


def test_renewal_is_of_certificates_for_the_same_keys(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    issue(two_groups(), directory)
    before = files(directory)
    report = issue(two_groups(), directory, renew=True)
    changed = {name for name, text in files(directory).items() if before[name] != text}
    certificates = {name for name in before if name.endswith(".crt") and name != "ca.crt"}
    assert changed == certificates == set(report.renewed)
    assert report.made == []


def test_a_certificate_that_ends_soon_is_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnelswitch.pki.certificates.CERTIFICATE_DAYS", 30)
    issue(two_groups(), tmp_path)
    report = issue(two_groups(), tmp_path)
    assert "primary/nats.crt" in report.ending
    assert "ca.crt" not in report.ending


def refused(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode in (1, 2), done
    (line,) = done.stderr.splitlines()
    assert "internal error" not in line
    return line.removeprefix("tunnelswitch: ")


def test_mistakes_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    example, plain = str(EXAMPLE), tmp_path / "plain"
    plain.write_text("not a directory")
    line = refused("--config", "/nonexistent.toml", "--out", str(tmp_path / "x"))
    assert line.startswith("/nonexistent.toml: cannot be read: No such file or directory; give")
    assert not (tmp_path / "x").exists()
    assert "; give a directory with --out that you may write" in refused(
        "--config", example, "--out", str(plain / "below")
    )
    directory = tmp_path / "pki"
    issue(two_groups(), directory)
    seed = who("primary/agent").seed(directory)
    seed.chmod(0o644)
    assert refused("--config", example, "--out", str(directory)) == (
        f"the key {seed} is open to others (mode 644); chmod 600 {seed}"
    )
    seed.chmod(0o600)
    (directory / "ca.key").rename(directory / "away")
    assert "; bring the key back" in refused("--config", example, "--out", str(directory))
    (directory / "away").rename(directory / "ca.key")
    (directory / "primary/nats.key").write_text("garbage")
    (directory / "primary/nats.crt").unlink()
    assert "nats.key holds no private key that can be used; move it away" in refused(
        "--config", example, "--out", str(directory)
    )


def test_a_directory_that_cannot_be_written() -> None:
    with pytest.raises(PkiError, match=r"^/proc/nowhere: ") as error:
        issue(two_groups(), Path("/proc/nowhere"))
    assert error.value.remedy == "give a directory with --out that you may write"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "holds no user's nkey seed"),
        (b"garbage\n", "holds no user's nkey seed"),
        (b"SUAGARBAGE\n", "holds no user's nkey seed"),
        (b"UD2P4KXHSLURZ7FDRCVD3APEYU3WAAGG3O4QDSGWIKD7MVQ6PKCAB4C6\n", "holds a public key, not the seed"),
        (b"SAANB73LMFKVN2VPOYHPFFLYQRJYWIDSRFRBEMJZVGWBUYYLKHJ6SKRDXI\n", "holds no user's nkey seed"),
        (b"\xff" * 5000, "holds no user's nkey seed"),
    ],
)
def test_what_is_no_seed_is_said_to_be_none(tmp_path: Path, text: bytes, expected: str) -> None:
    path = tmp_path / "agent.nk"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(BusError, match=expected) as error:
        nkey.read(path)
    assert error.value.remedy == "make one with `tunnelswitch pki init`"


def test_a_process_names_the_key_that_it_lacks(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8").replace("# keys = ", f'keys = "{tmp_path}"  #')
    config = tmp_path / "deployment.toml"
    config.write_text(text, encoding="utf-8")
    for command, seed in (
        (("agent", "--site", "primary"), "primary/agent.nk"),
        (("switcher", "--site", "gateway"), "gateway/switcher.nk"),
        (("init",), "operator/store.nk"),
        (("status",), "viewer/viewer.nk"),
    ):
        call = [*COMMAND[:3], *command, "--config", str(config)]
        done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            f"tunnelswitch: the key {tmp_path}/{seed} cannot be read: No such file or directory; "
            "copy it here, or make one with `tunnelswitch pki init`"
        )
