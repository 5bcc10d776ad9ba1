"""Ways to bring clients to the other copy, under one detection and one decision: ours, and those the paper names."""
