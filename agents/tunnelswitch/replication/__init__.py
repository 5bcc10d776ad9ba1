"""Drivers of protected services: whatever can be promoted and fenced stands behind `ports.ServiceDriver`.

A driver is never the parent of what it protects: an agent that dies leaves the service serving.
"""
