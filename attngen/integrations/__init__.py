"""attngen inside other libraries, one folder each."""
