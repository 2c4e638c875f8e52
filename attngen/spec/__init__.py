"""The language: YAML text to a Spec and back."""
