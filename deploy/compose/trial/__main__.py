"""Run the shipped containers, destroy the active site, bring it back, crash the service, and say what clients saw.

The files under trial are used as they are. What cannot be had without a registry is left out, by name.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import images
from engine import Engine, TrialError

CHECKOUT = Path(__file__).resolve().parents[3]
OUT = CHECKOUT / "out" / "compose"
LIMIT_SECONDS = 1200
UP_SECONDS, PROTECTED_SECONDS, SWITCH_SECONDS, BUILD_SECONDS = 240.0, 90.0, 30.0, 600.0
PROBE_SECONDS, FAULT_AFTER_SECONDS = 10, 3.0
PROBE_SPACING_SECONDS, CALL_SPACING_SECONDS = 0.001, 0.02
LONGEST_DOWNTIME_SECONDS = 3.0  # far above what it takes; a failover that an election holds up is beyond it
ENDPOINT = "http://127.0.0.1:9090/api/v1/query?query="
CRASH = "read -r pid _ </run/tunnelswitch/pbx/service.identity && kill -KILL $pid"


class Trial:
    """One run of everything; `figures` is what it found."""

    def __init__(self, engine: Engine, cache: Path) -> None:
        self._engine = engine
        self._cache = cache
        self._began = time.monotonic()
        self.figures: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def run(self) -> None:
        """Everything, in order. Raises TrialError at the first thing that is not as it must be."""
        services = json.loads(self._engine.compose("config", "--format", "json"))["services"]
        shown = self._provide(services)
        self._engine.compose("up", "--detach", "--no-build", "--wait", *shown, seconds=UP_SECONDS)
        self.say(f"up and healthy: {len(shown)} services")
        self._wait_protected("primary")
        self._fault("host-loss", "secondary", lambda: self._engine.compose("kill", "primary"))
        self._engine.compose("up", "--detach", "--no-build", "--wait", *shown, seconds=UP_SECONDS)
        self._wait_protected("secondary")
        crash = ["exec", "--no-TTY", "secondary-agent", "sh", "-c", CRASH]
        self._fault("service-crash", "primary", lambda: self._engine.compose(*crash))
        self._wait_protected("primary")

    def keep_logs(self) -> None:
        """Write figures and the containers' logs where a user finds them."""
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "summary.json").write_text(json.dumps(self.figures, indent=2) + "\n")
        try:
            (OUT / "containers.log").write_text(self._engine.compose("logs", "--no-color", "--timestamps"))
            (OUT / "containers.txt").write_text(self._engine.compose("ps", "--all"))
        except TrialError as error:
            self.say(f"no logs: {error}")

    def _provide(self, services: dict[str, Any]) -> list[str]:
        """Images, made or built; returns the services that can be run with them."""
        ours = {service["image"]: name for name, service in services.items() if "build" in service}
        bases = {service["image"] for service in services.values()} - set(ours)
        texts = images.dockerfiles(bases, images.python_image(CHECKOUT / "deploy" / "Dockerfile"))
        cached = images.provide(self._engine, self._cache, texts)
        self.say(f"stand-ins {'from the cache' if cached else 'made'}: {', '.join(texts)}")
        self._engine.compose("build", "--quiet", *ours.values(), seconds=BUILD_SECONDS)
        self.say(f"built from this checkout: {', '.join(ours)}")
        left_out = sorted(name for name, service in services.items() if service["image"] in bases - set(texts))
        if left_out:
            self.say(f"left out, their image cannot be made here: {', '.join(left_out)}")
        return [name for name in services if name not in left_out]

    def _wait_protected(self, active: str) -> None:
        query = f'tunnelswitch_protected == 1 and on (instance, group) tunnelswitch_active_site{{site="{active}"}} == 1'
        self._wait(f"count({query}) == 4", PROTECTED_SECONDS, f"all four processes to see {active} protected")
        self.say(f"protected, {active} serves")

    def _fault(self, name: str, expected: str, act: Callable[[], object]) -> None:
        """Break something under a probe; clients must be served on by `expected`."""
        trace = f"/tmp/{name}.trace"
        asking = ["--host", "192.168.77.10", "--seconds", str(PROBE_SECONDS), "--out", trace]
        probe = ["python3", "-m", "tunnelswitch_lab.workload.probe", *asking]
        asked = self._engine.compose_in_background("exec", "--no-TTY", "client", *probe)
        try:
            time.sleep(FAULT_AFTER_SECONDS)
            gaps_before = self._gaps()
            broken_at = time.monotonic()
            act()
            query = f'count(tunnelswitch_active_site{{site="{expected}", reporter="gateway"}} == 1) == 2'
            self._wait(query, SWITCH_SECONDS, f"{expected} to be active")
            seen_seconds = time.monotonic() - broken_at
            if asked.wait(PROBE_SECONDS + 20):
                raise TrialError("the probe failed")
        finally:
            asked.kill()
            asked.wait()
        script = Path(__file__).with_name("answers.py").read_text()
        answers = json.loads(self._engine.compose("exec", "--no-TTY", "client", "python3", "-c", script, trace))
        gaps_after = self._gaps()
        self._record(name, expected, answers, seen_seconds, largest_gap(gaps_before, gaps_after))

    def _record(
        self, name: str, expected: str, answers: dict[str, Any], seen_seconds: float, largest: tuple[float, float]
    ) -> None:
        downtime_seconds = answers["gap_seconds"] - PROBE_SPACING_SECONDS
        low, high = largest
        self.figures[name] = {
            "downtime_seconds": round(downtime_seconds, 4),
            "largest_gap_by_gateway_between_seconds": largest,
            "seen_in_prometheus_seconds": round(seen_seconds, 1),
            "answered_by": answers["sites"],
            "answers": answers["answers"],
        }
        self.say(
            f"{name}: clients without service for {downtime_seconds * 1000:.0f} ms (the gateway says {low * 1000:.0f} "
            f"to {high * 1000:.0f} ms); answered by {', then '.join(answers['sites'])}; in Prometheus after "
            f"{seen_seconds:.1f} s"
        )
        if len(answers["sites"]) != 2 or answers["sites"][1] != expected:
            raise TrialError(f"{name}: expected answers of one site, then of {expected}")
        if downtime_seconds > LONGEST_DOWNTIME_SECONDS:
            raise TrialError(f"{name}: clients were without service for more than {LONGEST_DOWNTIME_SECONDS:g} s")
        if not low - CALL_SPACING_SECONDS <= downtime_seconds <= high + CALL_SPACING_SECONDS:
            raise TrialError(f"{name}: the gateway and the probe do not agree on the downtime")

    def _gaps(self) -> dict[float, float]:
        """How many gaps in clients' packets the gateway has counted, by the bound that they do not exceed."""
        answer = self._ask("sum by (le) (tunnelswitch_downtime_seconds_bucket)")
        return {float(series["metric"]["le"]): float(series["value"][1]) for series in answer}

    def _ask(self, query: str) -> list[dict[str, Any]]:
        """The series that Prometheus has for a query now."""
        answer = json.loads(self._engine.fetch(ENDPOINT + quote(query)))
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def _wait(self, query: str, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not self._ask(query):
            if time.monotonic() > deadline:
                raise TrialError(f"waited {seconds:g} s for {what}")
            time.sleep(0.2)


def largest_gap(before: dict[float, float], after: dict[float, float]) -> tuple[float, float]:
    """Between which bounds the largest of the gaps lies that were counted meanwhile; zeros if there was none."""
    bounds = sorted(after)
    total = after[bounds[-1]] - before.get(bounds[-1], 0.0) if bounds else 0.0
    for low, high in zip([0.0, *bounds], bounds, strict=False):
        if total and after[high] - before.get(high, 0.0) == total:
            return low, high
    return 0.0, 0.0


def main() -> int:
    """Returns the exit status: 0 passed, 1 failed."""
    cache = Path(sys.argv[1])
    cache.mkdir(parents=True, exist_ok=True)

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGALRM:
            raise TrialError(f"not done after {LIMIT_SECONDS} s")
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    signal.alarm(LIMIT_SECONDS)
    began = time.monotonic()
    try:
        with Engine(cache, CHECKOUT) as engine:
            trial = Trial(engine, cache)
            try:
                trial.run()
            finally:
                trial.keep_logs()
    except TrialError as error:
        print(f"compose-test: FAILED: {error}\ncompose-test: logs, if it came that far: {OUT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"compose-test: passed in {time.monotonic() - began:.0f} s; figures and logs: {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
