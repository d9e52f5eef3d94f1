"""Values only, on the standard library: the words of docs/glossary.md as types."""
