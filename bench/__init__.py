"""What `make bench` measures: figures of one run on one machine, never gates.

`__main__` picks the measurements, one module each (`throughput`, `lag`, `memory`, `retry`), and prints one table. The
programs under measurement run in processes of their own: the controller's code (`subject`), the API as it is. Nothing
that is shipped imports this package. What each figure means: `docs/benchmarks.md`.
"""
