"""Decisions, and nothing else: standard library only, no I/O, no clock, no event loop.

Every machine here has the same four verbs: `receive(event, now)`, `deadline()`, `expire(now)` and `take_actions()`.
Time comes in as `now` (seconds of one monotonic clock); effects go out as an ordered tuple of actions. What an action
came to returns as an event. A simulator and `processes/pump.py` drive the same code.

"PROTOCOL Rn" in comments is rule Rn of docs/protocol.md.
"""
