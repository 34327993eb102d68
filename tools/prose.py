"""Check sentences for plain English: their openings, numbers in words, and answers of one word."""

import re
from collections.abc import Iterator

# A sentence whose subject comes first does not begin with these words; a question may.
OPENING = re.compile(r"((?:Of|What|Whose|Who is)\b|Only,)(?!.*\?)")
# Numbers are digits, with their unit: 0.02, 40 %, 1.5 times as fast. Counts up to ten may be words.
IN_WORDS = re.compile(
    r"\b((?:hundred|thousand)ths?|tenths|per cent|half as (?:fast|large|long|many|much|slow)"
    r"|(?:half|a third|a quarter) as \w+ again|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:-\w+)?"
    r"|(?:a|one|two|three|four|five|six|seven|eight|nine|ten|some|few)"
    r" (?:hundred|thousand|[mb]illion))\b",
    re.IGNORECASE,
)
LEAVE = re.compile(r"\bleave (?:out )?`?--")  # English reads "leave" as "keep"
FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"`[^`\n]*`|\]\([^)\s]*\)|\$\$.*?\$\$|\$[^$\n]*\$|<[^>\n]+>", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n")
MARK = re.compile(r"^(?:[-*>|]|\d+\.)\s+")  # of a list, a quotation or a table
LEAD = re.compile(r"^\*+[^*]+[.:]\*+\s*")  # a title at the start of a paragraph
ORPHAN = re.compile(r"^(?:[A-Z][a-z]+|(?:Neither|No|Nobody|Not|Nothing) [a-z]+)\.$")
ABBREVIATION = re.compile(r"\b[A-Za-z]*[A-Z][A-Za-z]*[A-Z][A-Za-z0-9]*\b")
# Abbreviations and names that a reader knows, or that the page of references explains
WORDS = """
AI AMD AMOS BMP BRATS BTCV BraTS CMYK COCO CPU CUDA CVPR CholecSeg8k DVD GB GPU GlaS ICLR ICML ISLES
ImageJ JPEG JSON JavaScript JupyterLab LLM LiTS MB MD5 MICCAI MIT MONAI MRI NIH NaN NeurIPS
NumPy PNG PyTorch README RGB SA SHA SimpleITK TMI TIFF USB WebAssembly
"""
KNOWN = frozenset(WORDS.split())
# Standard terms in small letters that the glossary explains as soon as a chapter uses them
STANDARD = (
    "augmentation", "backward pass", "baseline", "batch", "convolution", "cross-entropy",
    "degrees of freedom", "epoch", "fine-tuning", "focal loss", "forward pass", "gradient",
    "ground truth", "interpolation", "learning rate", "logit", "optimizer", "orthonormal",
    "overfitting", "percentile", "sigmoid", "skip connection", "softmax", "standard deviation",
    "transformer", "validation", "variance", "weight decay",
)  # fmt: skip
TERM = re.compile(rf"\b({'|'.join(STANDARD)})s?\b", re.IGNORECASE)


def abbreviations(text: str) -> set[str]:
    """Return the abbreviations of a Markdown text that are not `KNOWN`, such as HD95 or MedSAGa."""
    return set(ABBREVIATION.findall(bare(text))) - KNOWN


def standard_terms(text: str) -> set[str]:
    """Return the terms of `STANDARD` that a Markdown text uses."""
    return {term.lower() for term in TERM.findall(bare(text))}


def bare(text: str) -> str:
    """Return a Markdown text without code, formulas, addresses and tags."""
    return HIDDEN.sub(" x ", FENCE.sub("", text))


def problems(text: str) -> Iterator[str]:
    """Yield what is not plain in a Markdown text, one sentence for each place."""
    for leave in LEAVE.finditer(text):
        yield f"'{leave[0]}' says 'leave'; write 'omit'"
    for line in bare(text).splitlines():
        unmarked = MARK.sub("", MARK.sub("", line.strip()))
        unmarked = LEAD.sub("", unmarked).replace("*", "")
        heading = line.startswith("#")
        for sentence in SENTENCE.split(unmarked):
            start = " ".join(sentence.split()[:8])
            if not heading and (opening := OPENING.match(sentence)):
                yield f"'{start} ...' begins with '{opening[1]}'; put the subject first"
            if not heading and ORPHAN.match(sentence):
                yield f"'{start}' is no sentence; repeat the question in the answer"
            for words in IN_WORDS.finditer(sentence):
                yield f"'{start} ...' has '{words[0]}'; write digits"
