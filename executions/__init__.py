"""The domain: what an execution is and how it may change.

Everything directly in this package is pure (no I/O, no clock, no environment: time and randomness are arguments).
All I/O is in ``executions.adapters``, behind the protocols of ``executions.ports``.
"""
