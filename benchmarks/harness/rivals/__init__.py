"""The systems that ``exchange`` and ``step`` compare: ways to have a batch answered by another process, or by none."""
