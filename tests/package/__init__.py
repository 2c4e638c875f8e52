"""Tests of generated packages."""
