"""Importers of labels as other tools write them: one file a format. `detect.prepare_any` finds the format and makes the index table."""
