"""What doors and loops call: read, decide (pure), commit, and again when somebody was faster. Knows ports only."""
