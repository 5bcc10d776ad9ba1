"""For all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Both judge an example by the clock: where the machine stood still meanwhile, a right one fails.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
