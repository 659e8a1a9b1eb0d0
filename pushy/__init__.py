"""The WebSocket proxy tier: one feed process and N workers a host."""
