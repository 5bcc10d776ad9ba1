"""What clients saw, measured: captures, RFC 3550 statistics, gaps, the summary of a run and its report.

Figures come from packets and their kernel times, never from what a component says of itself; an independent
program (tshark) must agree with them.
"""
