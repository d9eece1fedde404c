"""Gymnasium environments, registered by name: nothing of ours is imported until one is made."""

from gymnasium.envs.registration import register

register(
    id="adaptive_split/Trace-v0",
    entry_point="adaptive_split.envs.split_env:make_trace_env",
    vector_entry_point="adaptive_split.envs.vector_env:make_trace_vector_env",
)
register(id="adaptive_split/Live-v0", entry_point="adaptive_split.envs.live_env:make_live_env")
