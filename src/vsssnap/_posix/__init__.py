"""What is particular to Linux; nothing here is imported on Windows."""
