"""Alert rules: what Prometheus says of them, and that each wakes a person with something to read."""

from __future__ import annotations

import re
import subprocess

import pytest
from dashboard_file import PROMETHEUS, ROOT, RULES, RULES_TEST, RUNBOOKS, alerts

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rules_and_scraping_are_valid() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", "--lint-fatal", str(RULES))
    assert "is valid" in promtool("check", "config", "--lint-fatal", str(PROMETHEUS))


def test_rules_fire_when_they_should_and_not_otherwise() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(RULES_TEST))
    text = RULES_TEST.read_text(encoding="utf-8")
    for alert in alerts():
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", text), f"{alert} never fires in a test"
        assert f"alertname: {alert}, exp_alerts: []" in text, f"{alert} is never quiet in a test"


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_has_a_name_a_severity_and_a_runbook(alert: str) -> None:
    assert re.fullmatch(r"Tunnelswitch([A-Z][a-z]+)+", alert)
    block = re.split(r"(?m)^ +- alert: ", RULES.read_text(encoding="utf-8"))
    body = next(part for part in block if part.startswith(f"{alert}\n"))
    assert re.search(r"labels: \{severity: (critical|warning)\}", body)
    assert f"runbook_url: docs/runbooks/{alert}.md" in body
    page = (ROOT / f"docs/runbooks/{alert}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {alert}\n")
    assert re.findall(r"(?m)^## (.+)$", page) == HEADINGS


def test_no_runbook_without_its_alert() -> None:
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md")) == sorted(alerts())
