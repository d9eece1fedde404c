"""Policies: the candidate-scoring SAC, its baselines, training, evaluation and export."""
