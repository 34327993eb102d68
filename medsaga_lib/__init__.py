"""Adapting the Segment Anything Model to medical images with few labels and little memory."""

from medsaga_lib import compat as _compat

__version__ = "0.1.0"

_compat.prepare_torchvision()
_compat.delay_segment_anything()
_compat.quiet_bitsandbytes()
