"""What to search: one file a workload, with ``SPACE``, dotted config key to Ray Tune domain."""
