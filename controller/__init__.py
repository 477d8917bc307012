"""The controller process: consumes the queue, and on the leader reconciles, sweeps and mirrors.

Start at ``__main__``, then ``app`` (which tasks run where), then ``reconciler`` (what is done for one execution).
"""
