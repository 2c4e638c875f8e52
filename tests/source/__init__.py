"""Tests of generated source: its text, its names, and what compilers make of it."""
