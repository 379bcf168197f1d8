"""Measuring codecs on sets of images: datasets, anchors, rows, BD-rates and the report."""
