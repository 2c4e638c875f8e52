"""Tests of attngen.nn."""
