"""The actors wired up: machines of the core, adapters, and the pump that moves events, actions and time between them.

Nothing is decided here.
"""
