"""The approaches that are compared, one file each."""
