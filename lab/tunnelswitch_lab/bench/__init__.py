"""Ours and its peers under the same fault, on the same testbed, seen by the same probe."""
