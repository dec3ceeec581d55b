"""The metrics that any data set allows, one file each."""
