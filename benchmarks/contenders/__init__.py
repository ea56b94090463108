"""The clients that are compared, one file each; a file is loaded only in its own process."""
