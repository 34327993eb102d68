"""Pretrains the pocket SAM as a promptable segmenter on procedural pictures (SAM, 2304.02643).

SAM's objective (its appendix A): a box or a point, then a corrective click; three masks for a lone
point, of which the best is taught; 20 x focal + dice, and the IoU head by squared error, on all
three. A picture is encoded once and answers several prompts, and none; boxes are asked once more of
a blank picture. Every step is a function of (seed, step) alone, so a run that was interrupted goes
on as if it had not been.

    python -m medsaga_lib.pretraining --out RUN --steps 20000
"""
