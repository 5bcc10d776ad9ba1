"""The promises on real parts: many faults, each carried out in a lab and judged by what the client received.

The cases are data (`catalogue` and what it gathers), steps carry them out, `judging` is pure, `running` runs.
"""
