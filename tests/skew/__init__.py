"""What other versions keep of an execution: recorded from each release, and as a later version may write it.

``recorded`` puts a recording into a Redis and makes a later version's of it; ``python -m tests.skew`` records.
The tests are ``tests/integration/test_version_skew.py``.
"""
