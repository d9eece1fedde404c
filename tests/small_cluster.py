"""A Ray cluster of two workers for tests."""

import gc
import warnings

from adaptive_split.agents.cluster import RayCluster


def open_small_cluster():
    """Start it; on a busy machine Ray may give up once and leave its processes to the collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        cluster = RayCluster(num_workers=2)
        gc.collect()
    return cluster
