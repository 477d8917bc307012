"""Crashes at every durable step: failpoints, a process that has them, what must hold afterwards, the matrix of runs.

Nothing of this is in the product: ``process`` wraps the adapters' methods from outside, in a process of its own.
"""
