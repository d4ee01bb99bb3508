"""From the file that --data names to the batches of a step. README.md lists the functions on the way, in order."""
