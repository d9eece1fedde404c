"""What device and server count, and how it is told."""
