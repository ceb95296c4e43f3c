"""Segmenting many images into a folder: sources, labels, results, the record of what is done, and the processes that do it."""
