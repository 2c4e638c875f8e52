"""Tests of attngen inside other libraries."""
