"""The contract between the sites: subjects, envelope, limits, schemas; and the NATS connection that carries them.

Knows no rule of the protocol: what a message means is the core's business.
"""
