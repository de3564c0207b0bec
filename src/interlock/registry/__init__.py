"""The door of packages: versions and evaluations (database side), and the structs and read side of what is signed on disk.

Serving and gateway see `approvals`, `routes` and `packages` only.
"""
