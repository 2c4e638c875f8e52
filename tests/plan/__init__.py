"""Tests of plans: key intervals, masks, spans and counts."""
