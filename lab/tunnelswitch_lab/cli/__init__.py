"""The command `tunnelswitch-lab`: builds labs, breaks things, measures, and simulates.

It parses and prints. A user's mistake is one line with the remedy on standard error and exit status 2.
"""
