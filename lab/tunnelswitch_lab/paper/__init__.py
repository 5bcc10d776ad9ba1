"""The paper's evaluation once more: its Fig. 4 and Fig. 5, where the downtime goes, and one report of it all."""
