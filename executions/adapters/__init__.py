"""The only I/O: Redis, SQS, launchers, Kubernetes, Google identity, the environment. One module per outside thing."""
