"""How costs grow with what a deployment has more of."""
