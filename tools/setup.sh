#!/bin/sh
# Make .venv with the pinned packages, once; every other make target runs this first.
set -eu

stamp=.venv/.stamp
wanted="$(cat requirements.txt pyproject.toml | cksum) $(pwd)"
[ "$(cat $stamp 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null && exit 0

stop() {
    echo "make stopped: $1" >&2
    exit 1
}

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
find_python() {
    poor=
    for python in python3 python3.13 python3.12 python3.11; do
        if "$python" -c "$new_enough" 2>/dev/null; then
            "$python" -c 'import ensurepip, venv' 2>/dev/null && return
            poor=${poor:-$python}
        fi
    done
    [ -z "$poor" ] ||
        stop "$poor cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv"
    found=$(python3 --version 2>/dev/null || echo "no Python")
    stop "this book needs Python 3.11 or newer and found $found; see https://www.python.org/downloads/"
}

# A .venv is made again if it was not finished, if the folder has moved since (a .venv holds absolute
# paths), or if its Python is gone; otherwise it is updated.
if [ -e .venv/.unfinished ] || { [ -e $stamp ] && ! grep -qF " $(pwd)" $stamp; } ||
    ! .venv/bin/python -c "$new_enough; import pip" 2>/dev/null; then
    find_python
    [ -e .venv ] && echo "make: removing a .venv that is unfinished or does not work"
    rm -rf .venv
    echo "make: making .venv with $("$python" --version)"
    mkdir .venv
    touch .venv/.unfinished
    "$python" -m venv .venv || stop "$python could not make .venv; the reason is above"
fi

rm -f $stamp
echo "make: installing the packages of requirements.txt into .venv (some minutes the first time)"
pip=".venv/bin/python -m pip --disable-pip-version-check install --quiet"
$pip -r requirements.txt || stop "the packages could not be installed; the reason is above"
$pip --no-deps --no-build-isolation --editable . || stop "medsaga_lib could not be installed"
echo "$wanted" >$stamp
rm -f .venv/.unfinished
