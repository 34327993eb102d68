#!/usr/bin/env bash
# torch 2.13.0: which modules the device "meta" brings into a process
#
# Good guess: A network built under torch.device("meta") has shapes and no numbers, so nothing is drawn,
#             nothing is multiplied, and nothing is imported for it.
# Behaviour:  The first normal_ on "meta", and the first product of a number and a meta tensor, import
#             torch._dynamo, torch's compiler. uniform_ and randn do not. So nn.Linear, nn.Conv2d and
#             nn.LayerNorm are free, nn.Embedding is not.
# Matters:    A program that asks SAM for its shapes (its prompt encoder has embeddings, and a random matrix
#             times a scale), to check a checkpoint or to count memory, waits at each start for a compiler
#             that it never uses.
# Seen (2026-12-01): nn.Linear, nn.Conv2d, nn.LayerNorm, randn: no module of torch._dynamo; nn.Embedding,
#             2.0 * tensor: 93 modules each, about .9 s of one core.
# Where:      torch/_prims_common/wrappers.py (out_wrapper), torch/_compile.py (_disable_dynamo)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$dir"
cat > probe.py <<'PY'
import sys
import time

import torch

made = {
    "nn.Linear": lambda: torch.nn.Linear(3, 4),
    "nn.Conv2d": lambda: torch.nn.Conv2d(3, 4, 3),
    "nn.LayerNorm": lambda: torch.nn.LayerNorm(4),
    "nn.Embedding": lambda: torch.nn.Embedding(3, 4),
    "randn": lambda: torch.randn(3),
    "product": lambda: 2.0 * torch.empty(3),
}
before = time.process_time()
with torch.device("meta"):
    made[sys.argv[1]]()
count = sum(name.startswith("torch._dynamo") for name in sys.modules)
print(f"{sys.argv[1]}: {count} modules of torch._dynamo, {time.process_time() - before:.2f} s")
sys.exit(0 if (count > 0) == (sys.argv[2] == "yes") else 1)
PY
venv/bin/python -W ignore -c 'import torch; print("torch", torch.__version__)'
for of in nn.Linear:no nn.Conv2d:no nn.LayerNorm:no nn.Embedding:yes randn:no product:yes; do
    venv/bin/python -W ignore probe.py "${of%:*}" "${of#*:}" || { echo "the imports are different now"; exit 1; }
done
