"""Classical codecs, measured on the same images in the same run as the learned ones.

Settings are those a person would use who cares about size, and stay the same over the whole ladder. Sizes are of what
has no metadata and the smallest container that the format's own decoder takes; pixels are that decoder's. An anchor is
one entry of a module here; the modules are listed below.
"""

from __future__ import annotations

from tto.bench.anchors.anchor import Anchor
from tto.bench.anchors.pillow import PILLOW_ANCHORS
from tto.bench.anchors.video import VIDEO_ANCHORS

ANCHORS: dict[str, Anchor] = {anchor.name: anchor for anchor in (*PILLOW_ANCHORS, *VIDEO_ANCHORS)}
"""Every anchor by name."""
