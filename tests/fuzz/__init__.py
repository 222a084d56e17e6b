"""Coverage-guided fuzzing: `make fuzz` runs every harness for a while, each in a process of its own."""
