"""Prefetch: every member's recommendations on their devices before the event, paced, and never a herd."""
