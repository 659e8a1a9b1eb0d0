"""Tests of what is under deploy/: configurations of other programs, read by these programs."""
