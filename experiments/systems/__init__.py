"""The systems that adaptive_split builds on, each as an experiment: its claim, held to ours."""
