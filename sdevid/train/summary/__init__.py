"""What is said of a run before its first step: sizes, memory, operations."""
