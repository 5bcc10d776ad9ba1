"""A deterministic simulator: the real core and the real execution logic in virtual time, in a world that fails.

`schedule` makes a setup and a list of faults of a seed, `world` plays them, `invariants` judges every step, `shrink`
finds a short list that still fails, `runner` does many. It opens no socket, starts no process and reads no clock but to
say how long it took. What it does not model is said in docs/simulator.md.
"""
