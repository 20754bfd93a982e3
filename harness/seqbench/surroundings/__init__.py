"""What surrounds a command: variables, signals, memory, libraries' own settings, the terminal."""
