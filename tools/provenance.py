"""The folders of recorded results, and their provenance, which comes from the library."""

from medsaga_lib.reproduce.provenance import ROOT, commit, device, machine

__all__ = ["RECORDED", "ROOT", "commit", "device", "machine"]
RECORDED = ROOT / "notebooks" / "recorded"
