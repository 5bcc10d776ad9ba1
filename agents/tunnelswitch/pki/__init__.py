"""Who may say what on the bus: identities, their keys, their permissions, and certificates."""
