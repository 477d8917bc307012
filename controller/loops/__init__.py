"""What the controller does all the time beside Kopf, one module per loop.

``polling`` is what the two queue readers, ``consumer`` and ``outcomes``, have in common.
"""
