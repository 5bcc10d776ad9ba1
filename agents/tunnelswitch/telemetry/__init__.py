"""What a process tells people: metrics, health and logs. Nothing here takes part in a decision or may hold one up."""
