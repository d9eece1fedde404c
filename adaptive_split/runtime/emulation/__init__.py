"""Links that play a trace on one machine: a rootless proxy, or packets between namespaces."""
