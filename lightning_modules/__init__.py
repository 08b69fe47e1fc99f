"""What a network is: one architecture a file, with its loss and its step."""
