"""The keeper of one guest under Xen Remus: a small process in dom0 that owns `xl remus` or `xl migrate-receive`.

Xen resumes a secondary when its stream ends. Whoever owns that stream must therefore outlive agents, and do little:
this package copies bytes, reads what xl says, and does what an agent asks over a unix socket (`control`). It decides
nothing about who serves. Standard library only, so that a dom0 needs Python and nothing else of ours.

    python3 -m xenkeeper --socket /run/xenkeeper/pbx.sock
"""

VERSION = 1
