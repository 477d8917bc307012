"""The HTTP door: dashboard controls, worker callbacks and probes. Decides nothing; ``executions`` does."""
