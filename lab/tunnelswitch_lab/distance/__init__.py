"""How far the sites are apart, and what that costs: downtime, checkpoints, and who can bring clients over at all."""
