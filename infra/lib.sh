# Shared by infra/quickstart, infra/check and infra/real-assets: find Python, make .venv, install.
# Source it after `set -euo pipefail`, from the repository's root.

say() { printf '\033[1m%s\033[0m %s\n' "mirsweep:" "$*"; }
stop() { printf 'mirsweep: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3 python; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  return 1
}

# The machine's free space where the environment will stand, in GiB.
free_gib() { df -Pk "$1" | awk 'NR == 2 { printf "%d", $4 / 1048576 }'; }

# why_install_failed LOG: the most likely cause in a few words.
why_install_failed() {
  if grep -qiE 'name resolution|Connection(Error| refused| reset)|Network is unreachable|timed out|Max retries|from versions: none' "$1"; then
    printf 'no network: the package index does not answer'
  elif grep -qi 'No space left' "$1"; then
    printf 'the disk is full'
  else
    grep -iE '^ *error: ' "$1" | head -n 1 | cut -c -200 || true
  fi
}

# ensure_environment EXTRAS: .venv with mirsweep and its pinned packages; quick when nothing changed.
ensure_environment() {
  local extras=$1 python stamp want log=.venv/install.log
  want=$(cat pyproject.toml infra/constraints.txt | sha256sum | cut -c -16)
  stamp=.venv/installed-$(printf '%s' "$extras" | tr -c 'a-z\n' '-')
  if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    return 0
  fi
  python=$(find_python) || stop "Python 3.11 is needed and was not found. Install it, or name it: PYTHON=/path/to/python3.11 bash $0"
  [ "$(free_gib .)" -ge 6 ] || stop "6 GiB of free disk space are needed here, $(free_gib .) GiB are free. Free some, or clone to another disk."
  if [ ! -x .venv/bin/python ]; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv || stop "$python cannot make a virtual environment. Install its venv module (Debian: python3.11-venv)."
  fi
  say "installing mirsweep and its packages into .venv (about two minutes the first time; log: $log)"
  if ! .venv/bin/python -m pip install --disable-pip-version-check \
      -c infra/constraints.txt -e ".$extras" >"$log" 2>&1; then
    stop "the packages could not be installed: $(why_install_failed "$log"). Full log: $log"
  fi
  printf '%s' "$want" >"$stamp"
}
