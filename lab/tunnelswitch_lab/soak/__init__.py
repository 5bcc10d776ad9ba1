"""Long runs under load in which nothing may fail over, and a lost host at their end that must be noticed."""
