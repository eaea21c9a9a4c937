#!/usr/bin/env bash
# Builds the API reference with pdoc, as HTML: every room and module of the package that has an `__all__`.
#
#   scripts/api_docs.sh [FOLDER]        # by default build/api; open FOLDER/index.html
#
# A warning of pdoc is an error: a name in `__all__` that does not exist, an annotation that cannot be read, a module
# that cannot be imported. One kind is ignored: pdoc 16 cannot resolve the annotations of a NamedTuple's generated
# constructor. PYTHON names the interpreter (by default .venv/bin/python); `pip install -e '.[docs]'` installs pdoc.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
out="$(realpath -m "${1:-$root/build/api}")"
cd "$root"
modules="$(grep -rl --include='*.py' '^__all__' prfl_jax | sed -e 's/\.py$//' -e 's/\/__init__$//' -e 's/\//./g' | sort)"

# shellcheck disable=SC2086  # one argument a module
exec "${PYTHON:-.venv/bin/python}" -W error::UserWarning \
  -W "ignore:Error parsing type annotation ForwardRef:UserWarning" \
  -m pdoc --docformat google --output-directory "$out" $modules
