"""torchvision is importable in every order of imports, and its nms is correct."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsaga_lib.compat import nms

NEEDS_TORCHVISION = ("segment_anything.predictor", "peft", "transformers", "torchvision")


# Import torch once, with the parts that torchvision imports; then run every code in a fork
INTERPRETER = """
import json, os, sys, traceback
import torch, torch._dynamo, torch._inductor.compile_fx

assert not {"torchvision", "medsaga_lib"} & set(sys.modules)
for line in sys.stdin:
    code, output = json.loads(line)
    child = os.fork()
    if not child:
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = 0
        try:
            exec(code, {})
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run code in an interpreter that has imported torch alone; returns what the code printed."""
    folder, numbers = tmp_path_factory.mktemp("outputs"), itertools.count()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", INTERPRETER], **pipes)

    def in_a_fork(code: str) -> str:
        output = folder / str(next(numbers))
        print(json.dumps([code, str(output)]), file=process.stdin, flush=True)
        status = process.stdout.readline()
        said = output.read_text()
        assert status == "0\n", said[-2000:]
        return said

    yield in_a_fork
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("first", NEEDS_TORCHVISION)
def test_imports_in_every_order(first, run):
    rest = [name for name in NEEDS_TORCHVISION if name != first]
    run(f"import medsaga_lib, {first}, {', '.join(rest)}")


def test_bitsandbytes_says_nothing_of_kernels_for_four_bits(run):
    """On a CPU with bf16 the import itself would warn; on others only the logger shows it."""
    code = "import sys, logging; sys.stderr = sys.stdout; import medsaga_lib, bitsandbytes; "
    warn = "logging.getLogger('bitsandbytes.backends.cpu.{}').warning('kernels')"
    assert run(code + warn.format("ops")) == ""


@pytest.mark.parametrize("first", ["segment_anything", "peft"])
def test_an_import_that_failed_before_is_mended(first, run):
    run(
        f"try:\n    import {first}\nexcept (RuntimeError, ModuleNotFoundError):\n    pass\n"
        "import medsaga_lib, segment_anything.predictor, peft, transformers\n"
        "import torchvision.ops as ops\n"
        "import torch\n"
        "boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6]])\n"
        "scores = torch.tensor([0.1, 0.9, 0.5])\n"
        "assert ops.nms(boxes, scores, 0.5).tolist() == [1, 2]\n"
        "classes = torch.tensor([0, 1, 0])\n"
        "assert ops.batched_nms(boxes, scores, classes, 0.5).tolist() == [1, 2, 0]\n"
    )


def test_a_whole_torchvision_stays_untouched(run):
    # The operator is there before the package looks: it must define nothing and add no finder.
    run(
        "import sys, torch\n"
        "library = torch.library.Library('torchvision', 'DEF')\n"
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "finders = list(sys.meta_path)\n"
        "import medsaga_lib.compat as compat\n"
        "assert compat.supply_missing_operators() is False\n"
        "added = [type(f).__name__ for f in sys.meta_path if f not in finders]\n"
        "assert compat._library is None and added == ['_DelayingFinder']\n"
    )


def test_calling_twice_changes_nothing(run):
    run(
        "import sys, medsaga_lib.compat as compat\n"
        "compat.supply_missing_operators()\n"
        "finders = list(sys.meta_path)\n"
        "before = compat._library\n"
        "compat.supply_missing_operators()\n"
        "assert compat._library is before and sys.meta_path == finders\n"
    )


SLOW = "sorted({'torchvision', 'torch._dynamo'} & set(sys.modules))"


@pytest.mark.parametrize(
    "use",
    [
        "import medsaga_lib.evaluation.of_a_run, segment_anything",
        "from medsaga_lib.models.weights import load_state; load_state('pocket')",
    ],
)
def test_the_parts_of_sam_come_without_torchvision_or_the_compiler(use):
    code = f"import sys; {use}; print({SLOW})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "use",
    [
        "from segment_anything import SamPredictor, sam_model_registry",
        "import segment_anything; segment_anything.SamPredictor",
        "from segment_anything import *; SamPredictor, build_sam_vit_b",
        "import segment_anything; assert 'SamPredictor' not in dir(segment_anything);"
        "assert hasattr(segment_anything, 'SamAutomaticMaskGenerator')",
    ],
)
def test_a_name_of_segment_anything_runs_its_init(run, use):
    run(
        "import sys, medsaga_lib\n"
        "from segment_anything.modeling import Sam\n"
        "assert 'torchvision' not in sys.modules\n"
        f"{use}\n"
        "import segment_anything, types\n"
        "assert 'torchvision' in sys.modules and type(segment_anything) is types.ModuleType\n"
        "assert segment_anything.modeling.Sam is Sam\n"
        "assert segment_anything.build_sam_vit_b.__module__ == 'segment_anything.build_sam'\n"
    )


def test_a_name_that_segment_anything_lacks_is_an_error(run):
    run(
        "import medsaga_lib, segment_anything\n"
        "for name in ('__wrapped__', 'Nothing', 'Nothing'):\n"
        "    try:\n        getattr(segment_anything, name)\n"
        "    except AttributeError as error:\n        assert name in str(error)\n"
        "    else:\n        raise AssertionError(name)\n"
    )


def test_an_init_that_failed_is_tried_again(run):
    run(
        "import sys, medsaga_lib, segment_anything\n"
        "sys.modules['torchvision'] = None\n"
        "for _ in range(2):\n"
        "    try:\n        segment_anything.SamPredictor\n"
        "    except ModuleNotFoundError as error:\n        assert 'torchvision' in str(error)\n"
        "    else:\n        raise AssertionError\n"
        "del sys.modules['torchvision']\n"
        "assert segment_anything.SamPredictor.__name__ == 'SamPredictor'\n"
    )


def test_importing_the_package_or_the_command_line_imports_nothing_heavy():
    heavy = {"torch", "numpy", "monai", "peft", "matplotlib", "pandas", "segment_anything"}
    code = "import sys, medsaga_lib.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "medsaga_lib" in imported
    assert not imported & heavy


def brute_force(boxes, scores, threshold):
    """Greedy suppression by its definition, in float64."""

    def iou(a, b):
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        overlap = width * height
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
        return overlap / union if union else 0.0

    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_nms_equals_brute_force(seed, count, threshold):
    random = np.random.default_rng(seed)
    corner = random.random((count, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + random.random((count, 2))], 1))
    scores = torch.from_numpy(random.integers(0, 10, count) / 10)  # with ties
    assert nms(boxes, scores, threshold).tolist() == brute_force(
        boxes.tolist(), scores.tolist(), threshold
    )


def test_what_segment_anythings_mask_generator_calls_suppresses_duplicates():
    from torchvision.ops.boxes import batched_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    kept = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), 0.7)
    assert kept.tolist() == [0, 2]
