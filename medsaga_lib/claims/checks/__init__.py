"""The checks: one short function for each claim; importing this package registers all of them."""

from medsaga_lib.claims.checks import (
    cheap_lunch,
    lite_medsam,
    medsaga_memory,
    medsaga_method,
    medsaga_summary,
    medsaga_tables,
    s_sam,
    torchao,
)

__all__ = [
    "cheap_lunch",
    "lite_medsam",
    "medsaga_memory",
    "medsaga_method",
    "medsaga_summary",
    "medsaga_tables",
    "s_sam",
    "torchao",
]
