#!/usr/bin/env bash
# torchao 0.18.0 (torch 2.13.0): the memory of AdamW's states with 8 and 4 bits
#
# Good guess: the sum of nbytes over the tensors in optimizer.state is the memory of the states, so 8 bits
#             give about a quarter of float32.
# Behaviour:  the states look like float32 tensors. nbytes, numel * element_size and the bytes of their
#             untyped_storage() are those of float32, for 8 and for 4 bits. The codes, scales and maps, which
#             are all that exists, are inner tensors that only __tensor_flatten__ names.
# Matters:    a table of optimizer memory (how SAM fits a small GPU) that is made with the usual sum says
#             that torchao saves nothing, in the same run in which bitsandbytes saves three quarters.
# Seen (2026-12-01): one matrix of 1024 x 1024, both moments: nbytes 8,388,608 for 8 and for 4 bits; inner
#             tensors 2,131,968 and 1,114,240; in a file 2.1 and 1.1 MB.
# Where:      torchao/optim/subclass_8bit.py, OptimState8bit.__new__ (`_make_wrapper_subclass`)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0
"$dir/venv/bin/pip" install -qq --disable-pip-version-check --no-deps torchao==0.18.0
cd "$dir"
venv/bin/python -W ignore - <<'PY'
import io
import logging
import sys
import torch
logging.disable()  # torchao warns that its GPU libraries cannot be loaded
from torchao.optim import AdamW4bit, AdamW8bit

for bits, kind in ((8, AdamW8bit), (4, AdamW4bit)):
    W = torch.nn.Parameter(torch.zeros(1024, 1024))
    optimizer = kind([W])
    moments = [optimizer._new_buffer(W, signed) for signed in (True, False)]  # as its first step makes them
    parts = [getattr(moment, name) for moment in moments for name in moment.__tensor_flatten__()[0]]
    file = io.BytesIO()
    torch.save(moments, file)
    seen, inner = sum(m.nbytes for m in moments), sum(part.nbytes for part in parts)
    storage = sum(m.untyped_storage().nbytes() for m in moments)
    print(f"{bits} bits: nbytes {seen:,}, storages {storage:,}; inner tensors {inner:,}; "
          f"in a file {file.getbuffer().nbytes:,}")
    if not seen == storage == 8 * W.numel():
        sys.exit("The states of torchao no longer look as large as float32.")
    if inner > bits / 32 * 1.1 * seen:
        sys.exit("The inner tensors of torchao's states are larger than stated.")
PY
