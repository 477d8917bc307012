"""A model checker of the protocol: the real decisions of the domain, every order in which the world may take its steps.

``world`` is what there is, ``steps`` what may happen next, ``invariants`` what must never be, ``check`` looks for it.
"""
