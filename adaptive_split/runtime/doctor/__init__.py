"""What this machine can and cannot do, found out by trying: one small file per organ."""
