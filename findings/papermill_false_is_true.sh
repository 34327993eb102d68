#!/usr/bin/env bash
# papermill 2.7.0: switches and identifiers given on the command line
#
# Good guess: `-p use_lora false` gives the notebook False, and `-p case 12e3` gives the name "12e3".
# Behaviour:  only the exact word False becomes a boolean. false stays text, and text is true in `if`.
#             Everything that float() accepts becomes a number: case 12e3 is 12000.0, case 007 is 7.
#             `-y "use_lora: false"` gives False, since YAML reads it. No warning.
# Matters:    both arms of an ablation run the same code and the executed notebook shows two equal rows;
#             a patient's results are filed under another name.
# Seen (2026-11-29): -p use_lora false: LoRA on; -p use_lora False and -y: off; cases 12000.0 and 7.
# Where:      papermill/cli.py, _resolve_type; option -r keeps text as it is
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --disable-pip-version-check \
  papermill==2.7.0 nbclient==0.11.0 nbformat==5.11.1 ipykernel==7.4.0
cd "$dir"
venv/bin/python - <<'PY'
import nbformat
from nbformat.v4 import new_code_cell, new_notebook
cells = [new_code_cell("use_lora = True\ncase = 'P1'", metadata={"tags": ["parameters"]}),
         new_code_cell("print('LoRA', 'on' if use_lora else 'off', 'case', case)")]
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
nbformat.write(new_notebook(cells=cells, metadata=kernel), "ablation.ipynb")
PY
run() {  # run the notebook with these options and compare what it prints with the first argument
  local expected=$1
  shift
  venv/bin/papermill ablation.ipynb out.ipynb --no-progress-bar --log-level ERROR "$@" 2>> papermill.log
  local seen
  seen=$(venv/bin/python -c "import nbformat; print(nbformat.read('out.ipynb', 4).cells[-1].outputs[0].text.strip())")
  echo "papermill $* -> $seen"
  if [ "$seen" != "$expected" ]; then
    echo "papermill no longer turns these parameters into the stated values." >&2
    exit 1
  fi
}
run "LoRA on case P1" -p use_lora false
run "LoRA off case P1" -p use_lora False
run "LoRA off case P1" -y "use_lora: false"
run "LoRA on case 12000.0" -p case 12e3
run "LoRA on case 7" -p case 007
run "LoRA on case 007" -r case 007
