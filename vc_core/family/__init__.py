"""What a file of the family holds: its parts, which model it is, and the opened file."""
