"""Manifests: what a platform needs to be told to run a command, rendered and checked.

``kuberay``, ``slurm`` and ``ray_up`` each build one; ``check_kuberay``, ``check_slurm`` and ``check_ray_up`` each read
one that somebody may have edited since. Nothing here talks to a cluster.
"""
