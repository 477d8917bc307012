"""The local stack behind `make run`, `up`, `test` and `bench`: a real control plane, Redis and an AWS double.

One module per component (`kubernetes`, `redis`, `aws`), one for where binaries come from (`binaries`, over `ladder`
and `cache`), one for background processes (`processes`). Nothing that is shipped imports this package.
Next step: `stack`, which puts the components together for `python -m devstack`.
"""
