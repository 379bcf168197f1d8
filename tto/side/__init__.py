"""Side information: what travels in the file beside the latents, one file for each kind.

A new kind is a file with its `Part` and `PartCoder` (`tto.side.side`), a line in `tto.side.coder.KINDS`, and a section
in `tto.container.SectionType`; how it is found for a picture is an operation of refinement.
"""
