"""Masks in the formats of annotation tools: one module per format, one for outlines, one for what is exported."""
