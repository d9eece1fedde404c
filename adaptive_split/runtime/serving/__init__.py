"""The edge server: its door, its queues, and the tails it computes."""
