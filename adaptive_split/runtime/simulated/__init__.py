"""Device, uplink and server as arithmetic, for many lanes at once."""
